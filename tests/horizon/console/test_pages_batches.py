"""Batches and chains: how far they are, what follows, and the drawing of it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from tests.horizon.console.browsing import Browser, Parsed
from tests.horizon.console.conftest import PLANTED

from gravito.errors import UnknownJobError
from gravito.horizon import Horizon
from gravito.horizon._chains import Chains
from gravito.horizon.console._graph import Edge, Node, graph
from gravito.horizon.repository import Repository

Make = Callable[..., Browser]


def keys(text: str) -> dict[str, str]:
    """The live values that a page was loaded with."""
    return {name: value.strip() for name, value in Parsed(text).keys().items()}


async def test_a_batch_says_how_far_it_is_and_what_follows(browse: Make, horizon: Horizon) -> None:
    @horizon.job(retries=0)
    async def work(number: int) -> None:
        if number == 7:
            raise LookupError("seventh")

    @horizon.job
    async def report() -> None: ...

    batch = horizon.batch([work.make(number) for number in range(10)], PLANTED)
    handle = await batch.then(report.make()).finally_(report.make()).allow_failures(2).push()
    browser = browse()
    page = f"/batches/{handle.id}"
    before = await browser.get(page)
    shown = keys(before.text)
    assert (shown["left"], shown["ok"]) == ("10", "0")
    assert "0 of 10 ended" in before.text
    assert before.text.count("not yet") >= 2
    assert "data-live" in before.text
    await horizon.work()
    await handle.wait(10)
    after = await browser.get(page)
    shown = keys(after.text)
    assert (shown["left"], shown["ok"], shown["dead"], shown["share"]) == ("0", "9", "1", "100 %")
    [failed] = (await Repository(horizon).batch(handle.id)).failed_ids
    assert f'href="/jobs?id={failed}"' in after.text
    assert after.text.count("pushed <time") == 2
    listed = (await browser.get("/batches")).text
    assert f'href="{page}"' in listed
    assert PLANTED not in listed
    assert (await browser.get("/batches/none")).status_code == 404


async def test_a_batch_is_cancelled_once_it_was_counted(browse: Make, horizon: Horizon) -> None:
    @horizon.job
    async def work() -> None: ...

    handle = await horizon.batch([work.make() for _ in range(5)], "five").push()
    browser, page = browse(), f"/batches/{handle.id}"
    question = await browser.post("/actions/batch.cancel", page, batch=handle.id)
    assert "Cancel the 5 jobs" in question.text
    await browser.act("batch.cancel", page, batch=handle.id)
    status = await Repository(horizon).batch(handle.id)
    assert (status.state, status.cancelled, status.left) == ("cancelled", 5, 0)


async def test_lists_go_on_beyond_their_first_page(browse: Make, horizon: Horizon) -> None:
    @horizon.job
    async def work() -> None: ...

    for number in range(25):
        await horizon.batch([work.make()], f"batch {number}").push()
        await horizon.chain(work.make(), work.make()).push()
    browser = browse()
    for kind in ("batches", "chains"):
        text = (await browser.get(f"/batches?kind={kind}")).text
        assert "1 to 20 of 25" in text
        assert f'rel="next" href="/batches?kind={kind}&amp;offset=20"' in text
        rest = (await browser.get(f"/batches?kind={kind}&offset=20")).text
        assert "21 to 25 of 25" in rest
        assert len([one for one in Parsed(rest).all("th") if one.attributes["scope"] == "row"]) == 5


async def test_a_chain_shows_each_of_its_jobs(browse: Make, horizon: Horizon) -> None:
    @horizon.job(retries=0)
    async def step(number: int) -> None:
        if number == 2:
            raise LookupError("second")

    chain = await horizon.chain(*[step.make(number) for number in range(5)]).push()
    repository, browser = Repository(horizon), browse()
    status = await repository.chain(chain.id)
    assert [job.state for job in status.jobs] == ["ready", *["unknown"] * 4]
    assert (status.state, status.place, status.total) == ("running", 0, 5)
    job = (await browser.get(f"/jobs/default/{chain.jobs[0].id}")).text
    assert f'href="/chains/{chain.id}"' in job
    assert [one.id for one in chain.jobs[1:] if one.id in job] == [one.id for one in chain.jobs[1:]]
    await horizon.work()
    status = await repository.chain(chain.id)
    assert [job.state for job in status.jobs] == ["ok", "ok", "dead", "unknown", "unknown"]
    assert (status.state, status.place) == ("dead", 2)
    text = (await browser.get(f"/chains/{chain.id}")).text
    assert text.count('class="node') == 5
    assert text.count('class="edge') == 4
    assert "2 of 5" in text
    fine = await horizon.chain(step.make(0), step.make(1)).push()
    await horizon.work()
    assert (await repository.chain(fine.id)).state == "done"
    assert (await repository.chain(fine.id)).place == 2
    assert (await browser.get("/chains/none")).status_code == 404
    with pytest.raises(UnknownJobError, match="there is no chain 'none'"):
        await repository.chain("none")


async def test_a_long_chain_is_looked_at_in_part_by_lists(horizon: Horizon) -> None:
    @horizon.job
    async def step() -> None: ...

    chain = await horizon.chain(*[step.make() for _ in range(80)]).push()
    _, [listed] = await Chains(horizon).listed(0, 10)
    assert (len(listed.jobs), listed.total, listed.jobs[-1].id) == (50, 80, chain.jobs[-1].id)
    await horizon.work()
    _, [listed] = await Chains(horizon).listed(0, 10)
    assert (listed.state, listed.place) == ("done", 80)


def test_a_graph_draws_what_it_is_given_as_text() -> None:
    nodes = [Node(0, 0, PLANTED, "ok", "good", "/x"), Node(1, 0, "b", "next"), Node(0, 1, "c", "last")]
    drawn = str(graph(nodes, [Edge(0, 1, PLANTED[:20]), Edge(1, 2)], PLANTED))
    assert "<script" not in drawn
    assert "<img" not in drawn
    assert drawn.count("<rect") == 3
    assert drawn.count('class="line"') == 2
    assert 'href="/x"' in drawn
