"""Live pages: one sampler for all, nothing asked when nobody watches, and an end that comes in time."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qs

import pytest
from tests.horizon.console.browsing import Browser, Parsed
from tests.waiting import until

from gravito.atlas import Client
from gravito.errors import RefusedError
from gravito.horizon import Horizon, Worker, WorkerOptions
from gravito.horizon.console import Console
from gravito.horizon.console._live import Live, Sampler
from gravito.horizon.console._live_pages import SOURCES
from gravito.horizon.console._pages import PAGES
from gravito.horizon.console._rotation import COST, SHARE, Rotation
from gravito.horizon.repository import Repository

Make = Callable[..., Browser]


class Source:
    """Gives what it is told to, when it is asked."""

    def __init__(self) -> None:
        self.asked = 0
        self.values: dict[str, str] | Exception = {"a": "1", "b": "1"}

    async def __call__(self) -> dict[str, str]:
        """A sample."""
        self.asked += 1
        if isinstance(self.values, Exception):
            raise self.values
        return dict(self.values)


def read(event: bytes) -> tuple[str, dict[str, str]]:
    """An event's name and data."""
    first, second, *rest = event.decode().split("\n")
    assert rest == ["", ""]
    return first.removeprefix("event: "), json.loads(second.removeprefix("data: "))


@pytest.fixture
def source() -> Source:
    """A fresh one."""
    return Source()


async def test_first_everything_then_what_changes(source: Source) -> None:
    events = Sampler(source, every=0.01).watch()
    assert read(await anext(events)) == ("all", {"a": "1", "b": "1"})
    source.values = {"a": "2", "b": "1", "c": "1"}
    while (event := read(await anext(events))) == ("some", {}):
        pass
    assert event == ("some", {"a": "2", "c": "1"})
    source.values = {"a": "2"}
    while (event := read(await anext(events))) == ("some", {}):
        pass
    assert event == ("some", {"b": "", "c": ""})
    await events.aclose()


async def test_all_watchers_share_the_samples(source: Source) -> None:
    sampler = Sampler(source, every=0.01)
    watchers = [sampler.watch() for _ in range(50)]
    for _ in range(3):
        events = await asyncio.gather(*[anext(one) for one in watchers])
        assert len(set(events)) == 1
    assert source.asked == 3
    for one in watchers:
        await one.aclose()


async def test_nobody_watches_nobody_asks(source: Source) -> None:
    sampler = Sampler(source, every=0)
    events = sampler.watch()
    await anext(events)
    await events.aclose()
    asked = source.asked
    for _ in range(20):
        await asyncio.sleep(0)
    assert (source.asked, sampler.watchers) == (asked, 0)
    events = sampler.watch()  # and anew
    source.values = {"a": "9"}
    assert read(await anext(events)) == ("all", {"a": "9"})
    await events.aclose()


async def test_whoever_is_slow_gets_everything_again_and_holds_nothing_up(source: Source) -> None:
    sampler = Sampler(source, every=0)
    slow, quick = sampler.watch(), sampler.watch()
    await anext(slow)
    for number in range(2, 20):
        source.values = {"a": str(number), "b": "1"}
        await anext(quick)
    name, values = read(await anext(slow))
    assert name == "all"
    assert values["b"] == "1"
    assert int(values["a"]) > 2
    await slow.aclose()
    await quick.aclose()


async def test_a_server_that_is_away_is_said_to_be(source: Source, caplog: pytest.LogCaptureFixture) -> None:
    events = Sampler(source, every=0).watch()
    await anext(events)
    source.values = RefusedError("nobody listens there")
    while (event := read(await anext(events)))[0] != "away":
        pass
    assert event == ("away", {"why": "nobody listens there"})
    source.values = KeyError("secret")
    while "secret" in (event := read(await anext(events)))[1]["why"] or "nobody" in event[1]["why"]:
        pass
    assert "log" in event[1]["why"]
    assert "secret" in caplog.text
    source.values = {"a": "1", "b": "1"}
    while (event := read(await anext(events)))[0] == "away":
        pass
    assert event[1] == {"a": "1", "b": "1"}  # all of it: the page's values may be old
    await events.aclose()


class Page:
    """An open live page, as an ASGI server sees it."""

    def __init__(self, console: Any, path: str) -> None:
        self.events: list[bytes] = []
        self.status = 0
        self._console = console
        self._path = path
        self._closed = asyncio.Event()
        self.task = asyncio.create_task(self._serve())

    async def _serve(self) -> None:
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": "GET",
            "scheme": "http",
            "path": self._path,
            "raw_path": self._path.encode(),
            "query_string": b"",
            "root_path": "",
            "headers": [(b"host", b"localhost")],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 80),
        }
        await self._console(scope, self._receive, self._send)

    async def _receive(self) -> dict[str, Any]:
        await self._closed.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
        elif message.get("body"):
            self.events.append(message["body"])

    async def close(self) -> None:
        """The visitor goes away."""
        self._closed.set()
        async with asyncio.timeout(10):
            await self.task


@asynccontextmanager
async def opened(console: Console, path: str, count: int = 1) -> AsyncIterator[list[Page]]:
    """So many open pages."""
    pages = [Page(console, path) for _ in range(count)]
    try:
        yield pages
    finally:
        for page in pages:
            await page.close()
    assert console.site.live.watchers == 0


async def test_a_page_hears_of_a_job(horizon: Horizon) -> None:
    @horizon.job
    async def work() -> None: ...

    await work.push()
    console = horizon.console()
    console.site.live = Live(every=0.01)
    async with opened(console, "/live/overview") as (page,):
        await until(lambda: len(page.events) > 1)
        assert page.events[0] == b"retry: 1000\n\n"
        assert read(page.events[1])[1]["q.default.ready"] == "1"
        await work.push()
        await until(lambda: any(b'"q.default.ready":"2"' in event for event in page.events))
    async with opened(console, "/live/nothing") as (page,):
        await until(page.task.done)
        assert page.status == 404


async def test_an_answer_ends_in_time_and_when_the_program_does(horizon: Horizon) -> None:
    console = horizon.console()
    console.site.live = Live(life=0.05)
    async with opened(console, "/live/workers") as (page,):
        await until(page.task.done)
    console.site.live = Live()
    async with opened(console, "/live/workers", 5) as pages:
        await until(lambda: all(len(page.events) > 1 for page in pages))
        console.close()
        await until(lambda: all(page.task.done() for page in pages))
        late = Page(console, "/live/workers")
        await late.task
        assert late.status == 503


async def test_asking_for_the_head_alone_is_answered_at_once(horizon: Horizon) -> None:
    console = horizon.console()
    async with Browser(console) as browser, asyncio.timeout(10):
        for name in SOURCES:
            answer = await browser.web.head(f"/live/{name}")
            assert answer.headers["content-type"].startswith("text/event-stream")
        assert (await browser.web.head("/live/nothing")).status_code == 404
    assert not any(console.site.live._samplers.values())  # nobody has watched, so nothing was sampled


async def test_every_live_value_of_a_page_has_a_source(horizon: Horizon, world: Any) -> None:
    """What a page shows as live is sent, and what is sent was written the same way."""
    console, seen = horizon.console(), 0
    async with Browser(console) as browser:
        for page in PAGES:
            text = (await browser.get(world.path(page.path))).text
            parsed = Parsed(text)
            address = parsed.all("body")[0].attributes.get("data-live")
            if address is None:  # nothing changes there, or no more
                continue
            seen += 1
            path, _, query = str(address).partition("?")
            values = await SOURCES[path.rpartition("/")[2]](console.site, parse_qs(query).get("of", [""])[0])
            assert parsed.keys() or "shape" in values, page.path
            missing = set(parsed.keys()) - set(values)
            assert not missing, (page.path, sorted(missing)[:5])
    assert seen >= 4


async def commands(redis: Client) -> int:
    """How many commands the server has executed, those inside of scripts too."""
    stats: Any = await redis.info("commandstats")
    return sum(one["calls"] for name, one in stats.items() if name != "cmdstat_info")


async def watched(console: Console, redis: Client, pages: int, samples: int) -> float:
    """Commands for each sample while so many pages are open, the first one apart: it reads a whole hour."""
    async with opened(console, "/live/overview", pages) as (first, *_):
        await until(lambda: console.site.live.watchers == pages and len(first.events) > 1)
        sampler = next(iter(next(iter(console.site.live._samplers.values())).values()))
        before, begun = await commands(redis), sampler._serial
        await until(lambda: sampler._serial >= begun + samples, timeout=30)
        return (await commands(redis) - before) / (sampler._serial - begun)


async def test_a_hundred_open_pages_ask_as_much_as_one(horizon: Horizon, redis: Client) -> None:
    await horizon.broker("default").pause()
    counted = []
    for pages in (1, 100):
        console = horizon.console()
        console.site.live = Live(every=0.02)
        counted.append(await watched(console, redis, pages, 20))
    assert counted[1] <= counted[0] + 2


async def test_a_hundred_open_pages_cost_less_than_two_percent_of_a_busy_queue(
    horizon: Horizon, redis: Client
) -> None:
    """Busy: 5,000 jobs a second, an eighth of what one worker process does; counted, not timed."""
    jobs = 10_000

    @horizon.job(results=False)
    async def nothing() -> None: ...

    before = await commands(redis)
    await horizon.push_many(nothing.make() for _ in range(jobs))
    await Worker(horizon, WorkerOptions(burst=True, concurrency=100)).run()
    second = (await commands(redis) - before) * 5_000 / jobs
    await nothing.push()  # something is ready: its age is asked for
    watching = await watched(horizon.console(), redis, 100, 5)  # at the pace that it has outside of tests
    assert watching < 0.02 * second, f"{watching:.1f} commands of a sample beside {second:.0f} of the queue"


async def test_many_queues_are_looked_at_in_turns(horizon: Horizon, redis: Client) -> None:
    @horizon.job
    async def work() -> None: ...

    for number in range(50):
        await work.on(f"q{number:02}").push()
    now = [100.0]
    rotation = Rotation(Repository(horizon), clock=lambda: now[0])
    assert [row.ready for row in await rotation.look(())] == [1] * 50
    await horizon.push_many(work.make().on(f"q{number:02}") for number in range(50))
    seen = []
    busy = 10 * COST / SHARE  # commands a second of a server that may be asked for ten queues
    for commands_a_second in (0.0, 0.0, busy, busy, 4 * busy, 4 * busy, 4 * busy):
        now[0] += 1.0
        before = await commands(redis)
        rows = await rotation.look((), commands_a_second)
        spent = await commands(redis) - before
        assert spent <= 5 + COST * max(1, commands_a_second * SHARE / COST)
        seen.append(sum(row.ready == 2 for row in rows))
    assert seen == sorted(seen)
    assert max(seen[:2]) <= 2, "an idle server is asked for one queue at a time"
    assert 9 <= seen[2] - seen[1] <= 10
    assert seen[-1] == 50
    await work.on("q99").push()  # a new one is there at once
    assert [row.name for row in await rotation.look(())][-1] == "q99"
    now[0] += 61  # nobody has looked for a while
    await horizon.push_many(work.make().on(f"q{number:02}") for number in range(50))
    assert sum(row.ready == 3 for row in await rotation.look(())) == 50


async def test_queues_in_which_something_happens_are_looked_at_more_often(
    horizon: Horizon, redis: Client
) -> None:
    @horizon.job
    async def work() -> None: ...

    names = [f"q{number:02}" for number in range(20)]
    await horizon.push_many(work.make().on(name) for name in names)
    now = [100.0]
    rotation = Rotation(Repository(horizon), clock=lambda: now[0])
    await rotation.look(())
    lags = []
    pushed = 1
    for _ in range(100):
        now[0] += 1.0
        await work.on("q07").push()
        pushed += 1
        rows = {row.name: row.ready for row in await rotation.look(())}
        lags.append(pushed - rows["q07"])
    assert max(lags[30:]) <= 4
    read = {at for at, _ in rotation._rows.values()}
    assert len(read) == 20, "the others have their turn, too"
    assert min(read) > 130


async def test_the_live_hour_counts_what_ends(horizon: Horizon, redis: Client) -> None:
    @horizon.job(retries=0)
    async def work(fail: bool = False) -> None:
        if fail:
            raise LookupError("no")

    await horizon.push_many(work.make().on(f"q{number}") for number in range(5))
    rotation = Rotation(Repository(horizon), clock=lambda: 100.0)
    for ended in range(1, 4):
        await horizon.push_many(work.make(fail=True).on("q3") for _ in range(ended == 2))
        await Worker(horizon, WorkerOptions(burst=True, queues=("q1",) if ended == 1 else ("q3", "q4"))).run()
        rotation.forget()
        await rotation.look(())
        hour, _ = await rotation.hour()
        assert (hour.total.ok, hour.total.dead) == ((1, 0), (3, 1), (3, 1))[ended - 1]
    before = await commands(redis)
    again, _ = await rotation.hour()
    assert again.total == hour.total
    assert await commands(redis) - before <= 2, "nothing has ended, so no queue is asked"


async def test_pages_of_one_kind_share_the_pace(source: Source) -> None:
    live, other = Live(every=0.01), Source()
    responses = [live.response(f"queue?{number}", source) for number in range(20)]
    responses.append(live.response("overview?", other))
    samplers = next(iter(live._samplers.values()))
    watchers = [sampler.watch() for sampler in samplers.values()]
    for one in watchers:
        await anext(one)
    while other.asked < 100:
        await anext(watchers[-1])
    assert source.asked < 20 + 5 * other.asked, "twenty pages ask about as often as one"
    assert source.asked > 20
    for one in watchers:
        await one.aclose()
    assert all(response is not None for response in responses)


async def test_of_many_kinds_all_are_sampled_less_often(source: Source) -> None:
    live, watchers, paces = Live(every=0.01), [], []
    for key in ("overview?", "workers?", "queue?a", "queue?b", "running?", "batch?c", "alerts?"):
        assert live.response(key, source) is not None
        samplers = next(iter(live._samplers.values()))
        watchers.append(samplers[key].watch())
        await anext(watchers[-1])
        paces.append(samplers[key]._crowd())
    assert paces == [1, 1, 1.5, 2 * 1.5, 2, 2.5, 3]
    for one in watchers[1:]:
        await one.aclose()
    assert samplers["overview?"]._crowd() == 1, "nobody else is watched any more"
    await watchers[0].aclose()


async def test_what_many_ask_for_at_once_is_read_once(horizon: Horizon) -> None:
    site, asked = horizon.console().site, 0

    async def read() -> int:
        nonlocal asked
        asked += 1
        await asyncio.sleep(0)
        return asked

    assert await asyncio.gather(*[site.lately("a", 60.0, read) for _ in range(100)]) == [1] * 100
    assert await site.lately("a", 60.0, read) == 1
    assert await site.lately("a", 0.0, read) == 2
    begun = asyncio.ensure_future(site.lately("b", 60.0, read))
    await asyncio.sleep(0)
    site.forget()  # somebody changed something: what was being read is old
    assert await begun == 3
    assert await site.lately("b", 60.0, read) == 4
    for number in range(2000):
        await site.lately(f"queue {number}", 60.0, read)
    assert len(site._lately) <= 500


async def test_a_change_is_seen_at_once(horizon: Horizon) -> None:
    @horizon.job
    async def work() -> None: ...

    await work.push()
    console = horizon.console()
    console.site.live = Live(every=0.01)
    async with Browser(console) as browser, opened(console, "/live/overview") as (page,):
        await until(lambda: len(page.events) > 2)
        await browser.act("queue.pause", queue="default")
        shape = re.search('data-shape="(.+?)"', (await browser.get("/queues")).text)
        assert shape is not None
        await until(lambda: any(shape[1].encode() in event for event in page.events))
