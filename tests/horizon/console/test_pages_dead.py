"""Dead letters by their error, long work in parts, and schedules."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from tests.horizon.console.browsing import SAME, Browser, Parsed
from tests.horizon.console.conftest import World

from gravito.horizon import Horizon
from gravito.horizon.console import _actions
from gravito.horizon.repository import Repository

Make = Callable[..., Browser]


@pytest.fixture
async def dead(horizon: Horizon) -> Repository:
    """Two hundred dead jobs of three kinds, in two queues."""

    @horizon.job(retries=0)
    async def mail(number: int) -> None:
        raise (LookupError if number % 4 else TimeoutError)(f"<b>{number}")

    await horizon.push_many(mail.make(number) for number in range(160))
    await horizon.push_many(mail.on("b").make(4 * number) for number in range(40))
    await horizon.work()
    return Repository(horizon)


async def test_groups_are_counted_and_lead_to_their_jobs(browse: Make, dead: Repository) -> None:
    browser = browse()
    text = (await browser.get("/dead")).text
    cells = [one.text.strip() for one in Parsed(text).all("td") if one.attributes.get("class") == "num"]
    assert cells == ["120", "40", "40"]
    assert "200 dead jobs" in text
    assert "&lt;b&gt;" in text
    assert "<b>" not in text
    assert "/jobs?state=dead&amp;queue=default&amp;name=mail&amp;error=LookupError" in text
    only = (await browser.get("/dead?queue=b")).text
    assert "40 dead jobs" in only
    assert "LookupError" not in only


async def test_a_group_is_retried_or_discarded_once_it_was_counted(browse: Make, dead: Repository) -> None:
    browser = browse()
    group = {"state": "dead", "queue": "default", "name": "mail", "error": "LookupError"}
    question = await browser.post("/actions/jobs.all", "/dead", do="retry", **group)
    assert "Retry 120 jobs?" in question.text
    await browser.post("/actions/jobs.all", "/dead", sure="yes", do="retry", **group)
    row = await dead.queue("default")
    assert (row.ready, row.sizes.dead) == (120, 40)
    await browser.act("jobs.all", "/dead", do="discard", state="dead", queue="")
    assert [group.count for group in await dead.dead_groups()] == []
    assert "No job is dead." in (await browser.get("/dead")).text


async def test_a_group_whose_error_is_not_known_does_not_stand_for_all(
    browse: Make, dead: Repository, horizon: Horizon
) -> None:
    causes = horizon.broker("default").keys.part("causes")
    await horizon.client.delete(causes)
    await horizon.client.hset(causes, "|", "1:1700000000000:x")  # as from the thousandth error on
    browser = browse()
    text = (await browser.get("/dead?queue=default")).text
    assert "(not known)" in text
    assert "one by one" in text
    assert "all of" not in text
    headers = {**SAME, "x-csrf-token": await browser.csrf()}
    data = {"do": "discard", "state": "dead", "queue": "default", "name": "", "error": "", "sure": "yes"}
    answer = await browser.web.post("/api/actions/jobs.all", data=data, headers=headers)
    assert (answer.status_code, answer.json()["error"]) == (409, "name is empty; leave it out to mean any")
    assert (await dead.queue("default")).sizes.dead == 160


async def test_long_work_is_done_in_parts_and_says_how_far_it_is(
    browse: Make, dead: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_actions, "_PATIENCE", 0.0)
    browser = browse()
    answer = await browser.act("jobs.all", "/dead", do="retry", state="dead", queue="")
    assert answer.status_code == 200
    assert "40 of 200" in answer.text
    assert answer.text.count("data-onward") == 1
    steps = 0
    while answer.status_code == 200:  # as the script does: post what the page holds
        form = re.search(r"<form[^>]*data-onward.*?</form>", answer.text, re.S)
        assert form is not None
        inputs = Parsed(form[0]).all("input")
        fields = {str(one.attributes["name"]): str(one.attributes["value"]) for one in inputs}
        answer = await browser.web.post("/actions/jobs.all", data=fields, headers=SAME)
        steps += 1
        assert steps < 5
    assert "200 jobs are back in their queue." in (await browser.get("/dead")).text
    assert sum(row.ready for row in await dead.queues()) == 200


async def test_schedules_are_run_paused_and_resumed(browse: Make, world: World) -> None:
    browser, repository = browse(), Repository(world.horizon)
    text = (await browser.get("/schedules")).text
    for shown in ("nightly", "0 2 * * *", "UTC", "greet", "not yet"):
        assert shown in text, shown
    before = (await repository.queue("default")).sizes.totals["pushed"]
    answer = await browser.post("/actions/schedule.run", "/schedules", schedule="nightly")
    assert answer.status_code == 303
    assert (await repository.queue("default")).sizes.totals["pushed"] == before + 1
    await browser.post("/actions/schedule.pause", "/schedules", schedule="nightly")
    [row] = await repository.schedules()
    assert (row.paused, row.next) == (True, None)
    assert "Resume" in (await browser.get("/schedules")).text
    await browser.post("/actions/schedule.resume", "/schedules", schedule="nightly")
    [row] = await repository.schedules()
    assert not row.paused
    await browser.post("/actions/schedule.run", "/schedules", schedule="none")
    assert "no schedule &#39;none&#39;" in (await browser.get("/schedules")).text
