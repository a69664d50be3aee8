"""Every change that the console offers, made with the mouse, and its question answered."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from selenium.webdriver.common.by import By
from tests.browser import application as app
from tests.browser.visitor import Visitor
from tests.browser.world import World

from gravito.horizon._timetable import ScheduleRow


def sure(visitor: Visitor, question: str) -> None:
    """Read the question, and say yes."""
    assert question in visitor.text(".question")
    visitor.run("document.querySelector('.confirm button').id = 'yes'")
    label = visitor.find("#yes").text
    visitor.press(label, ".confirm")


def job_page(visitor: Visitor, queue: str, job_id: str) -> None:
    visitor.get(f"/jobs/{queue}/{job_id}")


def fresh() -> str:
    """A queue of this test's own, which no worker serves."""
    return f"q-{uuid.uuid4().hex[:8]}"


def test_retry_a_dead_job(visitor: Visitor, world: World) -> None:
    job_id = world.push(app.fail.make("once more"))
    visitor.until(lambda: world.state("default", job_id) == "dead")
    first = world.detail(job_id, "default").ended
    job_page(visitor, "default", job_id)
    assert "LookupError" in visitor.text()
    visitor.press("Retry", ".head-actions")
    assert "back in their queue" in visitor.notice
    visitor.until(lambda: world.state("default", job_id) == "dead", "it did not end again")
    assert world.detail(job_id, "default").ended != first


def test_run_a_delayed_job_now(visitor: Visitor, world: World) -> None:
    job_id = world.push(app.greet.delay(3600).make("sooner"))
    job_page(visitor, "default", job_id)
    visitor.press("Run now", ".head-actions")
    assert "1 job is ready to run now" in visitor.notice
    visitor.until(lambda: world.state("default", job_id) == "ok", "it did not run")
    assert world.detail(job_id, "default").result == "hello sooner"


def test_cancel_a_running_job(visitor: Visitor, world: World) -> None:
    job_id = world.push(app.hold.make("never"))
    visitor.until(lambda: world.state("slow", job_id) == "running")
    job_page(visitor, "slow", job_id)
    visitor.press("Cancel", ".head-actions")
    assert "asked to end" in visitor.notice
    visitor.until(lambda: world.state("slow", job_id) == "cancelled", "it was not cancelled")


def test_delete_asks_first_and_no_changes_nothing(visitor: Visitor, world: World) -> None:
    queue = fresh()
    job_id = world.push(app.greet.on(queue).make("gone"))
    job_page(visitor, queue, job_id)
    visitor.press("Delete", ".head-actions")
    visitor.find(".confirm a.button").click()
    visitor.until(lambda: visitor.path.startswith("/jobs"))
    assert world.state(queue, job_id) == "ready"
    job_page(visitor, queue, job_id)
    visitor.press("Delete", ".head-actions")
    sure(visitor, "Delete 1 job?")
    assert world.state(queue, job_id) == "unknown"


def test_choose_jobs_and_change_them_together(visitor: Visitor, world: World) -> None:
    queue = fresh()
    ids = [world.push(app.greet.on(queue).make(str(number))) for number in range(3)]
    visitor.get(f"/jobs?state=ready&queue={queue}")
    visitor.find("[data-select-all]").click()
    assert visitor.text("[data-count]") == "3"
    visitor.find(f'input[value="{queue}/{ids[0]}"]').click()
    assert visitor.text("[data-count]") == "2"
    visitor.press("Cancel", "form[aria-label='Change the chosen jobs']")
    assert [world.state(queue, job_id) for job_id in ids] == ["ready"] * 3  # nothing before the answer
    sure(visitor, "Cancel 2 jobs?")
    assert "2 jobs are cancelled" in visitor.notice
    assert [world.state(queue, job_id) for job_id in ids] == ["ready", "cancelled", "cancelled"]


def test_change_everything_that_a_search_finds(visitor: Visitor, world: World) -> None:
    queue = fresh()
    ids = [world.push(app.greet.on(queue).make(str(number))) for number in range(60)]
    other = world.push(app.fail.on(queue).make("stays"))
    visitor.get(f"/jobs?state=ready&queue={queue}&name={world.detail(ids[0], queue).name}")
    visitor.press("Delete all")
    assert world.sizes(queue).ready[2] == 61
    sure(visitor, "Delete 60 jobs?")
    assert {world.state(queue, job_id) for job_id in ids} == {"unknown"}
    assert world.state(queue, other) == "ready"


def test_pause_resume_and_purge_a_queue(visitor: Visitor, world: World) -> None:
    queue = fresh()
    job_id = world.push(app.greet.on(queue).make("waits"))
    visitor.get(f"/queues/{queue}")
    visitor.press("Pause")
    assert f"{queue} is paused" in visitor.notice
    worker = world.work(queue)
    worker.shows("Working on")
    visitor.get(f"/queues/{queue}")
    assert "paused" in visitor.text(".head-actions")
    assert world.state(queue, job_id) == "ready"
    assert world.sizes(queue).paused
    visitor.press("Purge all ready jobs")
    sure(visitor, f"Delete 1 ready jobs of {queue} for good?")
    assert world.state(queue, job_id) == "unknown"
    second = world.push(app.greet.on(queue).make("runs"))
    visitor.press("Resume")
    assert not world.sizes(queue).paused
    visitor.until(lambda: world.state(queue, second) == "ok", "the queue did not go on")


def test_drain_a_worker(visitor: Visitor, world: World) -> None:
    queue = fresh()
    program = world.work(queue)
    program.shows("Working on")
    name = program.output.split(" as ")[1].split(";")[0]
    visitor.until(lambda: name in world.workers(queue))
    visitor.get("/workers")
    assert name in visitor.text()
    visitor.press(f"Drain {name}")
    assert "finishes its jobs and ends" in visitor.notice
    assert program.process.wait(20) == 0
    assert world.workers(queue) == set()
    visitor.get("/workers")
    assert name not in visitor.text()


def test_restart_a_worker(visitor: Visitor, world: World) -> None:
    queue = fresh()
    program = world.work(queue, "-p", "2")
    visitor.until(lambda: len(world.workers(queue)) == 2, "two workers never started")
    one, other = sorted(world.workers(queue))
    visitor.get("/workers")
    visitor.press(f"Restart {one}")
    assert "starts anew" in visitor.notice
    visitor.until(
        lambda: one not in world.workers(queue) and len(world.workers(queue)) == 2, "it was not replaced"
    )
    assert other in world.workers(queue)
    (new,) = world.workers(queue) - {other}
    visitor.get("/workers")
    assert new in visitor.text()
    assert one not in visitor.text()
    assert program.process.poll() is None


def test_forget_a_queue_once_it_is_empty(visitor: Visitor, world: World) -> None:
    queue = fresh()
    job_id = world.push(app.greet.on(queue).make("waits"))
    visitor.get(f"/queues/{queue}")
    visitor.press("Take off the list")
    assert "has 1 jobs; purge it first" in visitor.notice
    assert queue in world.do(world.repository.names)
    assert world.state(queue, job_id) == "ready"
    world.do(lambda: world.repository.act("delete", queue, [job_id]))
    visitor.get(f"/queues/{queue}")
    visitor.press("Take off the list")
    assert queue not in world.do(world.repository.names)
    visitor.get("/queues")
    assert queue not in visitor.text()


def test_cancel_from_the_list_of_running_jobs(visitor: Visitor, world: World) -> None:
    ids = [world.push(app.hold.make(f"never {number}")) for number in range(2)]
    visitor.until(lambda: {world.state("slow", one) for one in ids} == {"running"})
    visitor.get("/running")
    for job_id in ids:
        visitor.find(f'input[value="slow/{job_id}"]').click()
    visitor.press("Cancel")
    assert {world.state("slow", one) for one in ids} == {"running"}
    sure(visitor, "Cancel 2 jobs?")
    assert "2 running were asked to end" in visitor.notice
    visitor.until(
        lambda: {world.state("slow", one) for one in ids} == {"cancelled"}, "they were not cancelled"
    )
    assert world.sizes("slow").totals["cancelled"] >= 2


@pytest.mark.parametrize("scripts", [True, False], ids=["scripts", "no scripts"])
def test_schedules(visitor: Visitor, world: World, scripts: bool) -> None:
    def row() -> ScheduleRow:
        return next(one for one in world.do(world.repository.schedules) if one.name == "nightly")

    visitor.scripts(scripts)
    visitor.get("/schedules")
    click(visitor, "schedule.run", "nightly")
    told = notice(visitor, "nightly was fired out of turn")
    job_id = told.rpartition("job ")[2].rstrip(".")
    visitor.until(lambda: world.state("default", job_id) == "ok", "its job did not run")
    assert world.detail(job_id, "default").result == "hello the night"
    click(visitor, "schedule.pause", "nightly")
    notice(visitor, "nightly does not fire")
    assert row().paused
    click(visitor, "schedule.resume", "nightly")
    notice(visitor, "nightly fires again")
    assert not row().paused


def click(visitor: Visitor, action: str, schedule: str) -> None:
    """A button of a schedule, found without running anything in the page."""
    form = f"//form[contains(@action, '/actions/{action}')][input[@name='schedule'][@value='{schedule}']]//button"
    button: Any = visitor.driver.find_element(By.XPATH, form)
    button.click()


def notice(visitor: Visitor, words: str) -> str:
    """What the console says, read by the driver, once it says these words: a press leads to another page."""

    def said() -> list[str]:
        texts = [one.text for one in visitor.driver.find_elements(By.CSS_SELECTOR, ".notice[role]")]
        return [text for text in texts if words in text]

    return str(visitor.until(said, f"the console never said {words!r}")[0])


def test_without_scripts_a_queue_is_paused(visitor: Visitor, world: World) -> None:
    queue = fresh()
    world.push(app.greet.on(queue).make("waits"))
    visitor.scripts(False)
    visitor.get(f"/queues/{queue}")
    visitor.driver.find_element(By.CSS_SELECTOR, ".head-actions button").click()
    notice(visitor, f"{queue} is paused")
    assert world.sizes(queue).paused
