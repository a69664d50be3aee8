"""Pages of jobs: every job is reached, what is shown is what the queue says, and the changes that they offer."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from tests.horizon.console.browsing import Browser, Parsed
from tests.horizon.console.conftest import PLANTED, World

from gravito.horizon import Horizon, JobContext, inject
from gravito.horizon._rows import MASKED
from gravito.horizon.console import _pages_jobs
from gravito.horizon.repository import Repository

Make = Callable[..., Browser]


def boxes(text: str) -> list[str]:
    """The jobs that a page lists, as `queue/id`."""
    return [
        str(one.attributes["value"])
        for one in Parsed(text).all("input")
        if one.attributes.get("name") == "job"
    ]


def link(text: str, rel: str) -> str | None:
    """Where the link to a further page leads."""
    found = [one for one in Parsed(text).all("a") if one.attributes.get("rel") == rel]
    return str(found[0].attributes["href"]) if found else None


async def leaf(browser: Browser, path: str | None) -> list[str]:
    """What all pages of a list show, one behind the other."""
    found: list[str] = []
    for _ in range(200):
        assert path is not None
        answer = await browser.get(path)
        assert answer.status_code == 200, answer.text
        found += boxes(answer.text)
        path = link(answer.text, "next")
        if path is None:
            return found
    raise AssertionError("the list has no end")


async def test_leafing_reaches_every_job_of_all_states(browse: Make, horizon: Horizon) -> None:
    @horizon.job(retries=0)
    async def work(number: int) -> None:
        if number % 4 == 0:
            raise LookupError(f"number {number}")

    ended = await horizon.push_many(work.make(number) for number in range(120))
    await horizon.work()
    waiting = await horizon.push_many(
        (work.on("b") if number % 2 else work.delay(600)).make(number) for number in range(130)
    )
    browser = browse()
    every = {f"{one.queue}/{one.id}" for one in [*ended, *waiting]}
    found = await leaf(browser, "/jobs")
    assert len(found) == 250
    assert set(found) == every
    for state, number in (("ready", 65), ("delayed", 65), ("done", 90), ("dead", 30), ("running", 0)):
        found = await leaf(browser, f"/jobs?state={state}")
        assert (len(found), len(set(found))) == (number, number), state
        assert set(found) <= every
    assert len(await leaf(browser, "/jobs?state=all&queue=b")) == 65


async def test_a_job_that_goes_on_while_the_lists_are_read_is_on_the_page(
    browse: Make, horizon: Horizon, monkeypatch: pytest.MonkeyPatch
) -> None:
    @horizon.job
    async def work() -> None: ...

    job = await work.push()
    sizes = Repository.sizes

    async def late(repository: Repository) -> object:
        said = await sizes(repository)
        await horizon.work()  # it ends between the counts, where it is ready, and the lists
        return said

    monkeypatch.setattr(Repository, "sizes", late)
    assert boxes((await browse().get("/jobs")).text) == [f"{job.queue}/{job.id}"]


async def test_a_search_finds_what_is_far_behind(browse: Make, horizon: Horizon) -> None:
    @horizon.job(retries=0)
    async def work(number: int) -> None:
        if number == 3:
            raise LookupError("third")

    rare = [await work.tags("rare").push(1)]
    await horizon.push_many(work.make(number) for number in range(2, 5000))
    rare.append(await work.tags("rare").push(3))
    await horizon.work()
    rare.append(await work.tags("rare").delay(60).push(5))
    rare.append(await work.tags("rare").on("b").push(6))
    browser = browse()
    wanted = {f"{one.queue}/{one.id}" for one in rare}
    assert set(await leaf(browser, "/jobs?state=all&tag=rare")) == wanted
    assert set(await leaf(browser, "/jobs?state=done&tag=rare")) == {f"default/{rare[0].id}"}
    assert len(await leaf(browser, "/jobs?state=dead&error=LookupError&name=work")) == 2
    assert await leaf(browser, "/jobs?state=all&tag=none") == []
    later = (datetime.now(UTC) + timedelta(seconds=30)).strftime("%Y-%m-%dT%H:%M:%S")
    assert await leaf(browser, f"/jobs?state=delayed&since={later}") == [f"default/{rare[2].id}"]
    assert await leaf(browser, f"/jobs?state=all&queue=default&since={later}") == [f"default/{rare[2].id}"]


async def test_an_id_leads_to_its_job_in_whichever_queue(browse: Make, world: World) -> None:
    browser = browse()
    answer = await browser.get("/jobs", params={"id": world.places["id"]})
    assert answer.status_code == 303
    assert answer.headers["location"] == f"/jobs/default/{world.places['id']}"
    for missing in ("nothing", PLANTED):
        text = (await browser.get("/jobs", params={"id": missing})).text
        assert "There is no job" in text
        assert PLANTED not in text


async def test_what_a_search_cannot_mean_is_said(browse: Make) -> None:
    browser = browse()
    for query, why in (
        ("since=yesterday", "since is &#39;yesterday&#39;; say it as 2030-12-31T18:00"),
        ("queue=a%20b", "no name for a queue"),
        ("mark=done.x&name=a", "no mark of an earlier page"),
    ):
        answer = await browser.get(f"/jobs?{query}")
        assert answer.status_code == 400, query
        assert why in answer.text


async def test_a_job_shows_all_that_is_known(browse: Make, horizon: Horizon) -> None:
    @horizon.job(retries=1, backoff=0.01, secret=["password"])
    async def sign_up(name: str, password: str) -> str:
        raise LookupError(f"no {name}")

    @horizon.job
    async def fine(number: int) -> dict[str, int]:
        return {"twice": 2 * number}

    dead = await sign_up.tags("<b>").meta(note="<i>").push("<u>ann", "hunter2")
    ended = await fine.push(21)
    await horizon.work(everything=True)
    browser = browse()
    text = (await browser.get(f"/jobs/default/{dead.id}")).text
    assert "hunter2" not in text
    assert MASKED in text
    for shown in (
        "&lt;u&gt;ann",
        "&lt;b&gt;",
        "&lt;i&gt;",
        "run 1: failed",
        "run 2: dead",
        "Traceback",
        "next one after",
    ):
        assert shown in text, shown
    assert "<u>" not in text
    assert re.search(
        r'"twice": 42', (await browser.get(f"/jobs/default/{ended.id}")).text.replace("&#34;", '"')
    )
    assert (await browser.get("/jobs/default/nothing")).status_code == 404
    assert (await browser.get(f"/jobs/other/{dead.id}")).status_code == 404


async def test_a_parent_and_its_children_know_each_other(browse: Make, horizon: Horizon) -> None:
    @horizon.job
    async def child() -> None: ...

    @horizon.job
    async def parent(job: JobContext = inject()) -> list[str]:
        return [job.push(child.make()).id for _ in range(3)]

    handle = await parent.push()
    await horizon.work()
    children = await handle.result()
    browser = browse()
    page = Parsed((await browser.get(f"/jobs/default/{handle.id}")).text)
    [part] = [one.attributes["data-find"] for one in page.elements if "data-find" in one.attributes]
    assert f"parent={handle.id}" in str(part)
    rows = (await browser.get(str(part))).text
    assert "<html" not in rows
    assert all(f'href="/jobs/default/{one}"' in rows for one in children)
    [whole] = [
        one.attributes["href"] for one in page.all("a") if "&parent=" in str(one.attributes.get("href"))
    ]
    found = await leaf(browser, str(whole))
    assert sorted(found) == sorted(f"default/{one}" for one in children)
    text = (await browser.get(f"/jobs/default/{children[0]}")).text
    assert f'href="/jobs/default/{handle.id}"' in text
    await Repository(horizon).act("delete", "default", [handle.id])
    assert "is no longer kept" in (await browser.get(f"/jobs/default/{children[0]}")).text


async def test_a_job_shows_its_neighbours_in_a_chain_and_its_batch(browse: Make, horizon: Horizon) -> None:
    @horizon.job
    async def step(number: int) -> None: ...

    chain = await horizon.chain(*[step.make(number) for number in range(20)]).push()
    batch = (
        await horizon.batch([step.make(number) for number in range(3)], "Guests").then(step.make(9)).push()
    )
    await horizon.work()
    browser, repository = browse(), Repository(horizon)
    middle = chain.jobs[9].id
    part = await repository.chain_near(chain.id, middle)
    assert part is not None
    assert (part.first, part.total) == (5, 20)
    assert [one.id for one in part.jobs] == [one.id for one in chain.jobs[4:15]]
    assert {one.state for one in part.jobs} == {"ok"}
    text = (await browser.get(f"/jobs/default/{middle}")).text
    for one in chain.jobs[4:15]:
        assert f'href="/jobs/default/{one.id}"' in text
    assert f'href="/chains/{chain.id}">All 20 jobs' in text
    first = await repository.chain_near(chain.id, chain.jobs[0].id)
    assert first is not None
    assert (first.first, len(first.jobs)) == (1, 6)
    assert await repository.chain_near("nothing", middle) is None
    [member, *_] = await leaf(browser, f"/jobs?state=all&batch={batch.id}")
    text = (await browser.get(f"/jobs/{member}")).text
    assert "3 of 3 ended" in text
    assert f'href="/batches/{batch.id}"' in text
    [follower] = (await repository.batch(batch.id)).followers
    assert f'href="/jobs/default/{follower.id}"' in text
    whole = Parsed((await browser.get(f"/batches/{batch.id}")).text)
    [address] = [one.attributes["data-find"] for one in whole.elements if "data-find" in one.attributes]
    assert len(set(re.findall(r'href="(/jobs/default/[^"]+)"', (await browser.get(str(address))).text))) == 3


async def test_a_search_says_where_it_goes_on_until_its_page_is_full(
    browse: Make, horizon: Horizon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_pages_jobs, "_PATIENCE", 0.001)  # seconds: no machine is done by then

    @horizon.job
    async def work(number: int) -> None: ...

    await horizon.push_many(
        (work.tags("some") if number % 400 == 399 else work).make(number) for number in range(8000)
    )
    browser, address, found, looks = browse(), "/jobs?state=ready&tag=some", set[str](), 0
    while address:  # as the page's script does
        text = (await browser.get(address)).text
        found.update(boxes(text))
        [place] = [one.attributes for one in Parsed(text).elements if one.attributes.get("id") == "found"]
        address, looks = str(place.get("data-seek") or ""), looks + 1
    assert len(found) == 20
    assert looks > 1
    assert "That is all: 8,000 jobs were looked at." in text
    await horizon.push_many(work.on("b").tags("some").make(number) for number in range(80))
    text = (await browser.get("/jobs?state=ready&queue=b&tag=some")).text
    assert len(boxes(text)) >= 50
    assert "data-seek" not in text  # the page is full


async def test_one_job_is_retried_run_now_cancelled_and_deleted(browse: Make, world: World) -> None:
    browser, repository = browse(), Repository(world.horizon)
    dead, delayed = world.places["job"], world.places["delayed"]

    async def state(job_id: str) -> str | None:
        found = await repository.job(job_id)
        return None if found is None else found.state

    page = f"/jobs/default/{delayed}"
    assert {"Run now", "Cancel", "Delete"} <= {
        one.text.strip() for one in Parsed((await browser.get(page)).text).all("button")
    }
    await repository.pause("default")
    assert (
        await browser.post("/actions/jobs.act", page, do="run_now", job=f"default/{delayed}")
    ).status_code == 303
    assert await state(delayed) == "ready"
    await browser.post("/actions/jobs.act", page, do="cancel", job=f"default/{delayed}")
    assert await state(delayed) == "cancelled"
    await browser.post("/actions/jobs.act", page, do="retry", job=f"default/{dead}")
    assert await state(dead) == "ready"
    question = await browser.post("/actions/jobs.act", page, do="delete", job=f"default/{dead}")
    assert "Delete 1 job?" in question.text
    assert await state(dead) == "ready"
    await browser.act("jobs.act", page, do="delete", job=f"default/{dead}")
    assert await state(dead) is None


async def test_chosen_jobs_and_all_that_are_found_are_counted_first(browse: Make, horizon: Horizon) -> None:
    @horizon.job(retries=0)
    async def work(number: int) -> None:
        raise LookupError(str(number))

    handles = await horizon.push_many(
        (work.tags("odd") if number % 2 else work).make(number) for number in range(160)
    )
    await horizon.work()
    browser, repository = browse(), Repository(horizon)
    chosen = [f"default/{one.id}" for one in handles[:3]]
    assert "Retry 3 jobs?" in (await browser.post("/actions/jobs.act", "/jobs", do="retry", job=chosen)).text
    assert (await repository.queue("default")).sizes.dead == 160
    await browser.act("jobs.act", "/jobs", do="retry", job=chosen)
    assert (await repository.queue("default")).sizes.dead == 157
    fields = {"do": "delete", "state": "dead", "queue": "default", "tag": "odd"}
    question = await browser.post("/actions/jobs.all", "/jobs?state=dead&tag=odd", **fields)
    assert "Delete 79 jobs?" in question.text
    assert (await repository.queue("default")).sizes.dead == 157
    answer = await browser.act("jobs.all", "/jobs?state=dead&tag=odd", **fields)
    assert answer.status_code == 303
    assert (await repository.queue("default")).sizes.dead == 78
    assert "79 jobs are deleted." in (await browser.get("/jobs")).text


async def test_running_jobs_are_listed_with_their_age_and_can_be_cancelled(
    browse: Make, world: World
) -> None:
    browser = browse()
    text = (await browser.get("/running")).text
    [running] = boxes(text)
    queue, _, job_id = running.partition("/")
    assert queue == "held"
    assert re.search(r"ms|s", Parsed(text).keys()[f"r.{job_id}.age"])
    await browser.post("/actions/jobs.act", "/running", do="cancel", job=running)
    assert "1 running was asked to end." in (await browser.get("/running")).text
    assert (await world.horizon.handle(job_id, "held").wait(10)).state == "cancelled"
