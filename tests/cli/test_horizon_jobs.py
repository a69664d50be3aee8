"""`gravito horizon status`, `jobs`, `retry` and their kin, on an application with jobs of all kinds."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from tests.cli.application import Application, stop


@pytest.fixture(scope="module")
def application(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Application]:
    """With three jobs done, four dead and two waiting."""
    made = Application(tmp_path_factory.mktemp("application"))
    made.push("note", "a", "b", "c")
    made.push("fail", "x", "y", "x", "z")
    made.run("horizon", "work", "app:horizon", "--burst")
    made.push("slow", "d", "e")
    yield made
    made.close()


def read(application: Application, command: str, *args: str, status: int = 0) -> Any:
    """What a command says as JSON."""
    return json.loads(application.run("horizon", command, "app:horizon", "--json", *args, status=status))


def test_status_names_what_needs_a_hand(application: Application) -> None:
    said = application.run("horizon", "status", "app:horizon", status=1)
    assert "queue default has 2 ready jobs and no worker" in said
    found = read(application, "status", status=1)
    assert found["last_hour"] == {"ok": 3, "dead": 4, "retried": 0}


def test_queues_are_listed(application: Application) -> None:
    (row,) = read(application, "queues")
    assert (row["name"], sum(row["sizes"]["ready"]), row["sizes"]["dead"]) == ("default", 2, 4)
    assert row["oldest"] > 0
    assert "default" in application.run("horizon", "queues", "app:horizon")


def test_jobs_are_found_by_state_name_and_tag(application: Application) -> None:
    assert [row["name"] for row in read(application, "jobs")] == ["slow", "slow"]
    assert {row["state"] for row in read(application, "jobs", "--state", "done")} == {"ok"}
    assert len(read(application, "jobs", "--state", "dead", "--tag", "broken", "--limit", "3")) == 3
    assert read(application, "jobs", "--state", "dead", "--name", "note") == []
    assert "is no state" in application.run("horizon", "jobs", "app:horizon", "--state", "lost", status=2)


def test_what_a_job_says_does_not_steer_the_terminal(application: Application) -> None:
    said = application.run("horizon", "failed", "app:horizon", "--list")
    assert "no [bold]x" in said
    assert "\x1b" not in said
    (found, *_) = read(application, "failed", "--list")
    detail = application.run("horizon", "job", "app:horizon", found["id"])
    assert "fail(text=" in detail
    assert "raise LookupError" in detail
    assert "\x1b" not in detail


def test_failed_jobs_are_grouped_by_error(application: Application) -> None:
    (group,) = read(application, "failed")
    assert (group["count"], group["name"], group["error"]) == (4, "fail", "LookupError")


def test_an_unknown_job_is_said_to_be_unknown(application: Application) -> None:
    assert "No queue knows a job nope" in application.run("horizon", "job", "app:horizon", "nope", status=1)


def test_dead_jobs_are_queued_again_or_discarded(application: Application) -> None:
    first, second, *_ = (row["id"] for row in read(application, "failed", "--list"))
    assert read(application, "retry", first) == {"done": 1, "asked": 0, "left": 0}
    assert "discarded: 1" in application.run("horizon", "forget", "app:horizon", second)
    assert read(application, "retry", first, status=1) == {"done": 0, "asked": 0, "left": 1}
    assert "left as they are: 1" in application.run("horizon", "forget", "app:horizon", second, status=1)
    refused = application.run("horizon", "retry", "app:horizon", "--all", status=1)
    assert "Retry 2 dead jobs? Nobody can be asked here; say --yes." in refused
    assert "say --yes, too" in application.run("horizon", "retry", "app:horizon", "--all", "--json", status=2)
    assert "say either ids, or --all" in application.run("horizon", "retry", "app:horizon", status=2)
    done = application.run("horizon", "retry", "app:horizon", "--all", "--error", "LookupError", "--yes")
    assert "queued again: 2" in done
    assert read(application, "failed") == []
    assert read(application, "cancel", first) == {"done": 1, "asked": 0, "left": 0}
    gone = {"done": 5, "queue": "default", "part": "ready"}
    assert read(application, "purge", "default", "--yes") == gone
    assert "forgotten: 0" in application.run("horizon", "purge", "app:horizon", "default", "--yes")
    assert "is no part" in application.run(
        "horizon", "purge", "app:horizon", "default", "--part", "x", status=2
    )


def test_a_paused_queue_is_left_alone(application: Application) -> None:
    assert read(application, "pause", "default") == {"done": True, "queue": "default", "paused": True}
    application.push("note", "paused")
    application.run("horizon", "work", "app:horizon", "--burst")
    assert "paused" not in application.texts()
    assert "paused" in application.run("horizon", "queues", "app:horizon")
    assert read(application, "resume", "default") == {"done": True, "queue": "default", "paused": False}
    application.run("horizon", "work", "app:horizon", "--burst")
    assert "paused" in application.texts()


@pytest.mark.parametrize("command", ["pause", "resume", "purge"])
def test_a_queue_that_nobody_knows_is_refused(application: Application, command: str) -> None:
    said = application.run("horizon", command, "app:horizon", "defualt", status=1)
    assert "Error: there is no queue 'defualt'; there are: default" in said


def test_workers_are_listed_and_told_to_end(application: Application) -> None:
    worker = application.start("horizon", "work", "app:horizon", "--no-schedules")
    application.wait(lambda: read(application, "workers"))
    (record,) = read(application, "workers")
    assert (record["pid"], record["queues"], record["state"]) == (worker.pid, ["default"], "working")
    assert record["id"] in application.run("horizon", "top", "app:horizon", "--once")
    look = read(application, "top")
    assert (look["queues"][0]["name"], look["workers"][0]["id"]) == ("default", record["id"])
    assert set(look["last_hour"]) == {"ok", "dead", "retried"}
    both = ("--drain", record["id"], "--restart", record["id"])
    assert "not both" in application.run("horizon", "workers", "app:horizon", *both, status=2)
    said = read(application, "workers", "--drain", record["id"])
    assert said == {"done": True, "worker": record["id"], "order": "drain"}
    assert worker.wait(30) == 0
    assert "nobody" in application.run("horizon", "workers", "app:horizon", "--drain", "nobody", status=1)


def test_a_worker_told_to_restart_is_replaced_by_its_supervisor(application: Application) -> None:
    supervisor = application.start("horizon", "work", "app:horizon", "--no-schedules", "--processes", "2")
    application.wait(lambda: len(read(application, "workers")) == 2)
    before = {row["id"] for row in read(application, "workers")}
    told, other = sorted(before)
    application.run("horizon", "workers", "app:horizon", "--restart", told)
    now = before

    def replaced() -> bool:
        nonlocal now
        now = {row["id"] for row in read(application, "workers")}
        return len(now) == 2 and told not in now

    application.wait(replaced)
    assert other in now, "nobody told that one"
    stop(supervisor)


def test_schedules_are_part_of_it(application: Application) -> None:
    assert "often" in application.run("horizon", "schedule", "list", "app:horizon")
