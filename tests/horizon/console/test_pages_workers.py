"""The page of workers: some at a time, all of them in the end; and a first page that waits for no template."""

from __future__ import annotations

import re
from collections.abc import Callable

from tests.horizon.console.browsing import Browser, Parsed

from gravito.atlas import Client
from gravito.horizon import Horizon
from gravito.horizon._heartbeat import RunningJob, WorkerKeys, WorkerRecord, _encode, _Note
from gravito.horizon.console._live_pages import SOURCES
from gravito.horizon.console._pages import WORKERS

Make = Callable[..., Browser]


async def enlist(horizon: Horizon, redis: Client, count: int) -> set[str]:
    """Records of workers that nobody runs; their ids."""
    keys, now = WorkerKeys("horizon"), horizon.broker("default").now_ms()
    ids = [f"host{number:02}:1:x" for number in range(count)]
    for number, one in enumerate(ids):
        record = WorkerRecord(
            id=one,
            host=f"host{number:02}",
            pid=1,
            queues=("default",),
            concurrency=10,
            started=now - 5000,
            at=now,
            running=1,
            jobs=(RunningJob(f"j{number}", "default", "work", now - 1000, 1),),
        )
        await redis.set(keys.record(one), _encode(_Note(record)))
        await redis.zadd(keys.list, {one: now})
    return set(ids)


async def test_all_workers_are_reached_page_by_page(browse: Make, horizon: Horizon, redis: Client) -> None:
    ids, browser = await enlist(horizon, redis, 2 * WORKERS + 3), browse()
    seen: list[set[str]] = []
    address: str | None = "/workers"
    while address is not None:
        text = (await browser.get(address)).text
        parsed = Parsed(text)
        seen.append(set(re.findall(r'<section class="card worker" aria-labelledby="h-([^"]+)"', text)))
        values = await SOURCES["workers"](horizon.console().site, "")
        assert set(parsed.keys()) <= set(values), "what is shown is sent anew"
        assert re.findall(r'data-shape="(.+?)"', text) == [values["shape"]], (
            "the page is not read anew at once"
        )
        following = [one for one in parsed.all("a") if one.attributes.get("rel") == "next"]
        address = str(following[0].attributes["href"]) if following else None
    assert [len(one) for one in seen] == [WORKERS, WORKERS, 3]
    assert set.union(*seen) == ids


async def test_a_few_workers_need_no_pages(browse: Make, horizon: Horizon, redis: Client) -> None:
    await enlist(horizon, redis, 3)
    assert 'aria-label="Pages of this list"' not in (await browse().get("/workers")).text


async def test_the_first_visitor_waits_for_no_template(horizon: Horizon) -> None:
    console = horizon.console()
    async with console.lifespan():
        templates = console.site.templates
        compiled = {name for _, name in templates.cache} if templates.cache is not None else set()
        assert compiled == set(templates.list_templates(["html"]))
