"""`gravito horizon work` and `gravito schedule` as processes, on an application in a folder of its own."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.cli.application import Application, stop
from tests.waiting import alive


@pytest.fixture
def application(tmp_path: Path) -> Iterator[Application]:
    """In an empty folder."""
    made = Application(tmp_path)
    yield made
    made.close()


def test_a_worker_runs_jobs_and_drains_at_sigterm(application: Application) -> None:
    application.push("slow", "a", "b")
    worker = application.start("horizon", "work", "app:horizon", "--no-schedules", "--concurrency", "1")
    application.wait(lambda: "begin a" in application.texts())
    output = stop(worker)
    assert application.texts() == ["begin a", "end a"]
    assert "Stopped: 1 done" in output
    application.run("horizon", "work", "app:horizon", "--burst")
    assert application.texts() == ["begin a", "end a", "begin b", "end b"]


@pytest.mark.parametrize("processes", ["1", "2"])
def test_what_jobs_log_neither_steers_the_terminal_nor_forges_lines(
    application: Application, processes: str
) -> None:
    forged = "2030-01-01 00:00:00,000 INFO all is well"
    application.push("tell", f"\x1b[2J\x1b]0;title\x07\r{forged}\n{forged}")
    said = application.run("horizon", "work", "app:horizon", "--burst", "--processes", processes)
    assert not set(said) & {"\x1b", "\x07", "\r"}
    assert forged in said
    assert not [line for line in said.splitlines() if line.startswith("2030")]
    assert "it says \\x1b[2J\\x1b]0;title\\x07\\r2030" in said
    assert "is dead: LookupError: \\x1b[2J" in said
    assert "\n    Traceback (most recent call last):\n" in said, "a traceback keeps its lines"
    assert '\n        raise LookupError(f"no [bold]{text}' in said


def test_a_killed_process_is_replaced_and_its_job_runs_again(application: Application) -> None:
    supervisor = application.start("horizon", "work", "app:horizon", "--no-schedules", "--processes", "2")
    application.push("slow", "a")
    application.wait(lambda: "begin a" in application.texts())
    os.kill(int(application.lines()[0].split()[0]), signal.SIGKILL)
    application.wait(lambda: "end a" in application.texts())
    assert application.texts() == ["begin a", "begin a", "end a"]
    application.push("note", "later")
    application.wait(lambda: "later" in application.texts())
    assert "ended with SIGKILL; a new one starts" in stop(supervisor)


def test_a_supervisor_that_is_killed_takes_its_workers_along(application: Application) -> None:
    supervisor = application.start("horizon", "work", "app:horizon", "--no-schedules", "--processes", "2")
    children = Path(f"/proc/{supervisor.pid}/task/{supervisor.pid}/children")

    def workers() -> list[int]:
        return [int(pid) for pid in children.read_text().split()]

    # the workers are only starting at this moment: none of them has seen a living supervisor yet
    application.wait(lambda: len(workers()) == 2)
    orphans = workers()
    supervisor.kill()
    supervisor.wait()
    application.wait(lambda: not any(alive(pid) for pid in orphans))
    assert len(orphans) == 2


def test_a_burst_of_several_processes_ends(application: Application) -> None:
    application.push("note", *(str(number) for number in range(50)))
    application.run("horizon", "work", "app:horizon", "--burst", "--processes", "2")
    assert sorted(application.texts(), key=int) == [str(number) for number in range(50)]


def test_a_process_is_replaced_after_its_share(application: Application) -> None:
    supervisor = application.start(
        *("horizon", "work", "app:horizon", "--no-schedules"), *("--max-jobs", "1", "--concurrency", "1")
    )
    for text in ("a", "b"):
        application.push("note", text)
        application.wait(lambda text=text: text in application.texts())
    assert len({line.split()[0] for line in application.lines()}) == 2
    stop(supervisor)


def test_a_changed_file_restarts_the_workers(application: Application) -> None:
    supervisor = application.start("horizon", "work", "app:horizon", "--no-schedules", "--reload")
    application.push("note", "before")
    application.wait(lambda: "before" in application.texts())
    module = application.folder / "app.py"
    module.write_text(module.read_text().replace('{text}\\n")', '{text} anew\\n")'))

    def changed() -> bool:
        application.push("note", "after")
        return "after anew" in application.texts()

    application.wait(changed)
    assert "app.py has changed; restarting" in stop(supervisor)


def test_workers_fire_schedules_once_between_them(application: Application) -> None:
    workers = [application.start("horizon", "work", "app:horizon") for _ in range(2)]
    application.wait(lambda: application.texts().count("fired") >= 3)
    for worker in workers:
        stop(worker)
    listed = json.loads(application.run("schedule", "list", "app:horizon", "--json"))
    assert [(row["name"], row["when"]) for row in listed] == [
        ("often", "* * * * * *"),
        ("yearly", "0 0 1 1 *"),
        ("odd[/]name", "0 0 1 1 *"),
    ]
    assert listed[0]["last"] is not None
    assert listed[1]["last"] is None


def test_a_schedule_is_listed_paused_and_run_by_hand(application: Application) -> None:
    listed = application.run("schedule", "list", "app:horizon")
    assert "once in a while" in listed
    (odd,) = (line for line in listed.splitlines() if "odd[/]name" in line)
    assert odd.rstrip().endswith("more and more"), "a pipe's lines are not cut at 80 columns"
    assert "[bold]swept" in odd
    assert "\x1b" not in listed
    assert "is queued as job" in application.run("schedule", "run", "app:horizon", "yearly")
    application.run("horizon", "work", "app:horizon", "--burst")
    assert application.texts() == [""]
    said = json.loads(application.run("schedule", "pause", "app:horizon", "yearly", "--json"))
    assert said == {"done": True, "schedule": "yearly", "paused": True}
    assert "paused" in application.run("schedule", "list", "app:horizon")
    said = json.loads(application.run("schedule", "resume", "app:horizon", "yearly", "--json"))
    assert said == {"done": True, "schedule": "yearly", "paused": False}
    said = json.loads(application.run("schedule", "run", "app:horizon", "yearly", "--json"))
    assert (said["done"], said["schedule"], said["queue"]) == (True, "yearly", "default")
    assert "note" in application.run("horizon", "job", "app:horizon", said["job"])
    assert "paused" not in application.run("schedule", "list", "app:horizon")
    assert "there is no schedule 'never'" in application.run(
        "schedule", "run", "app:horizon", "never", status=2
    )


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("app", "say module:name"),
        ("nothing:x", "no module 'nothing'"),
        ("app:x", "has no 'x'"),
        ("app:note", "not a Horizon"),
    ],
)
def test_a_target_that_is_none_is_named(application: Application, target: str, said: str) -> None:
    assert said in application.run("horizon", "work", target, status=2)


def test_schedules_that_cannot_fire_are_listed_with_the_problem(application: Application) -> None:
    code = application.folder / "app.py"
    code.write_text(
        code.read_text()
        + """
horizon.schedule("seldom", note)
horizon.schedule("empty").daily()
horizon.schedule("shut", note).daily().at("02:00").between("08:00", "09:00")
horizon.schedule("lacking", slow).daily()
"""
    )
    rows = {
        row["name"]: row for row in json.loads(application.run("schedule", "list", "app:horizon", "--json"))
    }
    assert [rows["yearly"]["problem"], rows["seldom"]["when"]] == [None, None]
    for name, problem in (
        ("seldom", "does not say how often"),
        ("empty", "has nothing to run"),
        ("shut", "never fires"),
        ("lacking", "cannot run its job without arguments"),
    ):
        assert f"schedule '{name}' {problem}" in rows[name]["problem"]
    assert "schedule 'seldom' does not say how often" in application.run("schedule", "list", "app:horizon")
    for name in ("empty", "lacking"):
        said = application.run("schedule", "run", "app:horizon", name, status=1)
        assert f"Error: schedule '{name}'" in said
        assert "Traceback" not in said
