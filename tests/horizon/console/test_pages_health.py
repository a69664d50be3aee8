"""Watched tags, alerts, caches and connections: what is shown is what was counted."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec
import pytest
from fastapi import FastAPI
from tests.horizon.console.browsing import Browser, Parsed
from tests.horizon.console.conftest import PLANTED, World
from tests.waiting import until

from gravito.atlas import Client
from gravito.errors import HorizonError
from gravito.horizon import Horizon
from gravito.horizon._tags import Tags
from gravito.horizon._watch import AlertWatch
from gravito.horizon.alerts import Failures, Message, Slack, Waiting
from gravito.horizon.console import _health
from gravito.horizon.console._pages import PAGES
from gravito.horizon.repository import Repository
from gravito.stasis import Cache

Make = Callable[..., Browser]


def numbers(text: str) -> list[str]:
    """What stands in the facts of a page."""
    part = text[text.index('<dl class="facts">') :]
    return [one.text.strip() for one in Parsed(part).all("a")][:6]


async def test_watched_tags_are_counted_over_all_states_and_queues(browse: Make, horizon: Horizon) -> None:
    @horizon.job(retries=0)
    async def work(number: int) -> None:
        if number == 1:
            raise LookupError("first")

    browser = browse()
    assert "No tag is watched." in (await browser.get("/monitoring")).text
    tagged = work.tags("import", PLANTED)
    for number in range(4):
        await tagged.push(number)
    await work.push(9)
    await horizon.work()
    await tagged.delay(60).push(5)
    await tagged.on("b").push(6)
    assert (await browser.post("/actions/tag.watch", "/monitoring", tag=PLANTED)).status_code == 303
    text = (await browser.get("/monitoring")).text
    assert PLANTED not in text
    assert "among all 7 jobs" in text
    assert numbers(text) == ["0", "1", "1", "0", "3", "1"]  # running, ready, delayed, held back, ended, dead
    page = await Repository(horizon).tags()
    assert page.tags[0].latest[0].ended is not None
    await browser.post("/actions/tag.unwatch", "/monitoring", tag=PLANTED)
    assert "No tag is watched." in (await browser.get("/monitoring")).text


async def test_what_was_not_counted_is_said(horizon: Horizon, browse: Make) -> None:
    @horizon.job(tags=["many"])
    async def work() -> None: ...

    await horizon.push_many(work.make() for _ in range(1200))
    await Tags(horizon).watch("many")
    text = (await browse().get("/monitoring")).text
    assert "among 1,000 of the 1,200 jobs" in text
    assert "The search looks at all of them." in text


async def test_what_is_no_tag_and_too_many_are_refused(horizon: Horizon, browse: Make) -> None:
    tags = Tags(horizon)
    for wrong in ("", "a\nb", "x" * 201):
        with pytest.raises(HorizonError, match="is no tag; allowed"):
            await tags.watch(wrong)
    for number in range(50):
        await tags.watch(f"tag {number}")
    await tags.watch("tag 3")  # watched already
    browser = browse()
    await browser.post("/actions/tag.watch", "/monitoring", tag="one more")
    assert "remove one first" in (await browser.get("/monitoring")).text
    assert len(await tags.watched()) == 50


async def test_alerts_show_what_fires_and_hide_where_it_is_told(browse: Make, horizon: Horizon) -> None:
    @horizon.job
    async def work() -> None: ...

    horizon.alert("slow <b>", Waiting(0.01), Slack("https://hooks.example/secret"))
    horizon.alert("failing", Failures(0.5))
    browser = browse()
    text = (await browser.get("/alerts")).text
    assert text.count(">quiet<") == 2
    assert "secret" not in text
    for name, alert in horizon.alerts.items():  # nobody is told
        horizon.alerts[name] = msgspec.structs.replace(alert, channels=())
    await work.push()
    await asyncio.sleep(0.05)  # the job has to wait for longer than the rule allows
    await AlertWatch(horizon).look()
    async with asyncio.timeout(
        20
    ):  # the console watches, too, and may be the one that is just about to note it
        while ">firing<" not in text:
            text = (await browser.get("/alerts")).text
    assert (text.count(">quiet<"), text.count(">firing<")) == (1, 1)
    assert text.index("slow &lt;b&gt;") < text.index("failing")
    assert "queue default: 1 jobs are ready" in text
    async with Horizon(horizon.client) as other:
        rows = await _health.read_alert_rows(other.console().site)
        assert [(row.name, row.rule) for row in rows] == [("slow <b>", "")]


class Always:
    """A rule that always has something to say."""

    async def check(self, repository: Repository) -> str | None:
        """Say it."""
        return "it is bad"


def alerting(horizon: Horizon) -> list[str]:
    """An alert that fires; what is told of it."""
    heard: list[str] = []

    class Ear:
        async def send(self, message: Message) -> None:
            heard.append(message.state)

    horizon.alert("always", Always(), Ear())
    return heard


def watching() -> list[asyncio.Task[object]]:
    """The tasks that look at alerts."""
    return [task for task in asyncio.all_tasks() if task.get_name() == "alerts"]


async def test_a_mounted_console_watches_alerts_from_its_first_request_on(horizon: Horizon) -> None:
    console = horizon.console()
    app = FastAPI()
    app.mount("/horizon", console)
    async with Browser(app, "/horizon") as browser:
        await browser.get("/")
        assert watching() == []  # there is nothing to look at
        heard = alerting(horizon)
        for _ in range(3):
            await browser.get("/healthz")
        await until(lambda: heard)
    assert heard == ["firing"]
    [watch] = watching()
    watch.cancel()
    await asyncio.wait([watch])


async def test_an_application_s_lifespan_watches_without_any_request(horizon: Horizon) -> None:
    heard, console = alerting(horizon), horizon.console()
    async with console.lifespan(), Browser(console) as browser:
        await until(lambda: heard)
        await browser.get("/")
        assert len(watching()) == 1
    assert heard == ["firing"]
    assert watching() == []
    async with console.lifespan():  # as an application that is started anew
        assert console.site.live.response("a", None) is not None  # type: ignore[arg-type]  # not begun
    assert console.site.live.response("a", None) is None  # type: ignore[arg-type]


async def test_the_console_watches_alerts_while_it_is_served(horizon: Horizon) -> None:
    heard = alerting(horizon)
    inbox: asyncio.Queue[dict[str, str]] = asyncio.Queue()
    sent: list[str] = []

    async def send(message: object) -> None:
        sent.append(message["type"])  # type: ignore[index]

    serving = asyncio.create_task(horizon.console()({"type": "lifespan"}, inbox.get, send))  # type: ignore[arg-type]
    before = len(asyncio.all_tasks())
    await inbox.put({"type": "lifespan.startup"})
    await until(lambda: heard)
    assert heard == ["firing"]
    await inbox.put({"type": "lifespan.shutdown"})
    await serving
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    assert len(asyncio.all_tasks()) <= before


async def test_a_cache_is_shown_by_template(browse: Make, world: World, redis: Client) -> None:
    async with Cache(connection=redis, prefix="shop") as cache:
        for number in range(4):
            await cache.put(f"user:{number}", PLANTED, 60)
            assert await cache.get(f"user:{number}") == PLANTED
        await cache.get("<b>:1")
        await cache._core.tallies.flush()
    browser = browse()
    text = (await browser.get("/connections?prefix=shop")).text
    assert "&lt;b&gt;" in text
    report = await _health.read_cache(world.horizon.console().site, "shop")
    assert (report.total.hits, report.total.misses) == (4, 1)
    assert report.total.hit_rate == 0.8
    assert [row.template for row in report.templates][:1] == ["user"]
    assert "80 %" in text
    said = (await browser.get("/api/cache?prefix=shop")).json()["total"]
    assert (said["hit_rate"], said["mean_run_ms"]) == (0.8, None)
    assert "No process has reported" in (await browser.get("/connections")).text
    assert (await browser.get("/connections", params={"prefix": "a b"})).status_code == 400
    await redis.set("text:s", "no hash")
    assert "No process has reported" in (await browser.get("/connections?prefix=text")).text


async def test_connections_show_their_counters_and_the_servers_commands(
    browse: Make, horizon: Horizon
) -> None:
    browser = browse()
    await horizon.client.set("a", 1)
    found = await _health.read_connections(horizon.console().site)
    own = next(row for row in found.connections if row.ping_ms is not None)
    assert (
        own.stats["commands"] == horizon.client.stats().commands - 2
    )  # those that were asked for afterwards
    assert found.commands == sorted(found.commands, key=lambda row: -row.total_ms)
    text = (await browser.get("/connections")).text
    assert "What costs the server most" in text
    assert found.commands[0].name in text


async def test_no_page_looks_through_the_servers_keys(browse: Make, world: World) -> None:
    browser, client = browse(), world.horizon.client
    await client.config_resetstat()
    for page in PAGES:
        assert (await browser.get(world.path(page.path))).status_code == 200
    assert (await browser.get("/jobs?state=all&tag=none")).status_code == 200
    ran = {name.removeprefix("cmdstat_") for name in await client.info("commandstats")}
    assert "zrange" in ran
    assert not ran & {"scan", "keys", "hscan", "sscan", "zscan", "randomkey"}
