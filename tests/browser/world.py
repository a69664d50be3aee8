"""An engine, workers and a console as processes of their own, and what the queues hold."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from tests.browser import application as app
from tests.examples.programs import GRAVITO, ROOT, Program, free_port, served

from gravito.atlas import Client
from gravito.horizon import Horizon, Repository, Worker, WorkerOptions
from gravito.horizon._messages import Sizes
from gravito.horizon._rows import JobDetail
from gravito.horizon._watch import AlertWatch
from gravito.stasis import Cache

__all__ = ["TOKEN", "World", "running"]

TOKEN = "a-token-of-more-than-sixteen"
HELD = ("first", "one", "two", "three", "watched")  # what would keep a worker from ending
QUEUES = "default,slow,limited"
T = TypeVar("T")


class World:
    """What the browser's tests look at, and push to.

    Args:
        url: of the engine.
        address: of the console.
        folder: where programs run.
    """

    def __init__(self, url: str, address: str, folder: Path) -> None:
        self.url = url
        self.address = address
        self.folder = folder
        self.ids: dict[str, str] = {}  # of the jobs that `fill` has pushed
        self._programs: list[Program] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self.client = Client.from_url(url)
        self.horizon = Horizon(self.client)
        self.horizon.provide(Client, lambda: self.client)

    def __repr__(self) -> str:
        return f"<World {self.address}>"

    def do(self, make: Callable[[], Awaitable[T]]) -> T:
        """Run something async and wait for it."""

        async def run() -> T:
            return await make()

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(60)

    @property
    def repository(self) -> Repository:
        """What readers ask, beside the console."""
        return Repository(self.horizon)

    def workers(self, queue: str) -> set[str]:
        """The worker processes that serve a queue."""
        found = self.do(self.repository.workers)
        return {worker.id for worker in found if queue in worker.queues}

    def push(self, call: Any) -> str:
        """Push a job; its id."""
        return self.do(lambda: self.horizon.push(call)).id

    def push_many(self, calls: Iterable[Any]) -> None:
        """Push jobs."""
        made = list(calls)
        self.do(lambda: self.horizon.push_many(made))

    def state(self, queue: str, job_id: str) -> str:
        """Where a job is now."""
        found = self.do(lambda: self.horizon.broker(queue).look(job_id))
        return str(found.state)

    def sizes(self, queue: str) -> Sizes:
        """How many jobs are where."""
        return self.do(lambda: self.horizon.broker(queue).sizes())

    def release(self, key: str) -> None:
        """Let the job end that holds this key."""
        self.do(lambda: self.client.set(f"go:{key}", 1))

    def detail(self, job_id: str, queue: str) -> JobDetail:
        """All that is known of a job."""
        found = self.do(lambda: self.repository.job(job_id, queue))
        assert found is not None
        return found

    def start(self, *command: str) -> Program:
        """A program of the terminal, on this engine."""
        program = Program([*GRAVITO, *command], ROOT, self.url)
        self._programs.append(program)
        return program

    def work(self, queues: str = QUEUES, *more: str) -> Program:
        """A worker process."""
        command = ("horizon", "work", "tests.browser.application:horizon", "-q", queues, "-c", "20")
        return self.start(*command, *more)

    def work_off(self, queue: str) -> None:
        """Run what is ready in a queue, by a worker of this process."""
        options = WorkerOptions(queues=(queue,), burst=True)
        self.do(lambda: Worker(self.horizon, options).run())

    def serve(self, application: str, port: int) -> Program:
        """An ASGI application."""
        program = Program(["-m", "uvicorn", application, "--port", str(port)], ROOT, self.url)
        self._programs.append(program)
        return program

    def fill(self) -> None:
        """Jobs of every kind, by the name of what they become."""
        ids = self.ids
        ids["done"] = self.push(app.greet.make("you"))
        ids["dead"] = self.push(app.fail.make("nothing here"))
        ids["retried"] = self.push(app.flaky.make("too late"))
        ids["delayed"] = self.push(app.greet.delay(3600).make("later"))
        ids["ready"] = self.push(app.greet.on("unserved").make("nobody"))
        ids["running"] = self.push(app.hold.make("first"))
        for key in ("one", "two", "three"):
            ids["parked"] = self.push(app.alone.make(key))
        for _ in range(2):
            self.push(app.rarely.make())
        batch = [app.greet.make(f"guest {number}") for number in range(8)] + [app.fail.make("no seat")]
        ids["batch"] = self.do(lambda: self.horizon.batch(batch, "Guests").push()).id
        chain = (app.greet.make("a"), app.hold.make("chain"), app.greet.make("b"))
        first = self.do(lambda: self.horizon.chain(*chain).push()).jobs[0].id
        ids["chain"] = str(self.detail(first, "default").chain)
        self.release("chain")
        self.plant()

    def plant(self) -> None:
        """Script wherever text may be."""
        text, ids = app.PLANTED, self.ids
        ids["planted"] = self.push(app.planted.meta(note=text).make(text))
        ids["planted batch"] = self.do(lambda: self.horizon.batch([app.planted.make(text)], text).push()).id
        self.do(lambda: self.repository.watch_tag(text))
        self.do(lambda: self.client.set("alarm:planted", text))
        self.horizon.alert(text, app.Asked("alarm:planted"))
        self.look_at_alerts()
        self.do(self._use_cache)

    async def _use_cache(self) -> None:
        async with Cache(connection=self.client) as cache:  # of the usual prefix
            await cache.put("user:1", app.PLANTED, 600)
            for _ in range(4):
                assert await cache.get("user:1") == app.PLANTED
            await cache.get("user:2")
            await cache.get(f"{app.PLANTED}:1")

    def look_at_alerts(self) -> None:
        """Do now what workers and consoles do every 15 seconds."""
        self.do(lambda: AlertWatch(self.horizon).look())

    def close(self) -> None:
        """End all processes, and forget the loop."""
        for key in HELD:
            self.release(key)
        for program in self._programs:
            program.end()
        self.do(self._leave)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _leave(self) -> None:
        await self.horizon.aclose()
        await self.client.aclose()


@contextmanager
def running(folder: Path) -> Iterator[World]:
    """Start everything, and end it."""
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    world = World(f"embedded://{folder / 'data'}", address, folder)
    os.environ["GRAVITO_CONSOLE_TOKEN"] = TOKEN
    try:
        world.work()
        world.fill()
        console = world.start("horizon", "console", "tests.browser.application:horizon", "--port", str(port))
        with served(console, address):
            yield world
    finally:
        del os.environ["GRAVITO_CONSOLE_TOKEN"]
        world.close()
