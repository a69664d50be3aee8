"""What a row is given, and the list of rows."""

from __future__ import annotations

import asyncio
import importlib
import io
import logging
import os
import pkgutil
import tempfile
import time
import warnings
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from tests.faults import rows as _rows
from tests.faults.control import Control
from tests.faults.ledger import Figures, Ledger
from tests.faults.proxy import Proxy

from gravito.atlas import Client, Limits, Retry, Settings, Timeouts
from gravito.atlas.embedded import Directive
from gravito.atlas.topology.cluster import Cluster

CANARY = "canary-7f3d1c5b"  # the password of every server of the bench: it must never be seen anywhere

Number = TypeVar("Number", int, float)


class Row(msgspec.Struct, frozen=True):
    """One line of the table."""

    name: str
    fault: str  # what is done
    must: str  # what must happen
    run: Callable[[Bench], Awaitable[None]]


ROWS: dict[str, Row] = {}


def row(name: str, fault: str, must: str) -> Callable[[Callable[[Bench], Awaitable[None]]], Row]:
    """Put a coroutine function on the list."""

    def put(run: Callable[[Bench], Awaitable[None]]) -> Row:
        ROWS[name] = Row(name, fault, must, run)
        return ROWS[name]

    return put


def load() -> dict[str, Row]:
    """All rows, in the order of their files."""
    for module in pkgutil.iter_modules(_rows.__path__):
        importlib.import_module(f"{_rows.__name__}.{module.name}")
    return ROWS


class Bench:
    """Makes servers, proxies and clients for one run of a row, and looks what is left of them at its end."""

    def __init__(self, ledger: Ledger, full: bool, stack: ExitStack) -> None:
        self.ledger = ledger
        self.full = full
        self._stack = stack
        self._clients: list[Client] = []
        self._servers: list[Control] = []

    def pick(self, short: Number, full: Number) -> Number:
        """The scale: one number for the short form, one for the full."""
        return full if self.full else short

    def folder(self) -> Path:
        """An empty folder that goes with the row."""
        return Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="gravito-faults-")))

    def at_end(self, act: Callable[[], object]) -> None:
        """Call this when the row is over, whatever becomes of it."""
        self._stack.callback(act)

    @contextmanager
    def logged(self) -> Iterator[list[str]]:
        """The lines that are logged while the block runs."""
        lines: list[str] = []
        handler = logging.Handler()
        handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
        logging.getLogger().addHandler(handler)
        try:
            yield lines
        finally:
            logging.getLogger().removeHandler(handler)

    def server(
        self,
        directory: Path | None = None,
        directives: Mapping[str, Directive] | None = None,
        password: str | None = CANARY,
        start: bool = True,
        start_timeout: float = 30.0,
    ) -> Control:
        """A server; see `Control`."""
        control = Control(password, directory, directives, start_timeout)
        if start:
            self._stack.enter_context(control)
        else:
            self._stack.callback(control.__exit__)
        self._servers.append(control)
        return control

    def proxy(self, server: Control) -> Proxy:
        """A proxy before a server."""
        return self._stack.enter_context(Proxy(server.port))

    def settings(
        self,
        to: Control | Proxy,
        *,
        timeout: float | None = 5.0,
        connect: float = 2.0,
        lease: float = 5.0,
        health: float = 0.0,
        limits: Limits | None = None,
        retry: Retry | None = None,
        **more: Any,
    ) -> Settings:
        """Settings for a client of a server or of a proxy. Times in seconds; health 0 sends no pings."""
        fields: dict[str, Any] = {
            "password": CANARY,
            "health_check": health,
            "timeouts": Timeouts(connect=connect, command=timeout, lease=lease, drain=1.0),
            "limits": limits or Limits(),
            "retry": retry or Retry(),
            **more,
        }
        return Settings(port=to.port, **fields)

    def client(self, to: Control | Proxy, **settings: Any) -> Client:
        """A client whose remains are looked for at the end."""
        return self.keep(Client(self.settings(to, **settings)))

    def keep(self, client: Client) -> Client:
        """Look for what is left of this client, too."""
        self._clients.append(client)
        return client

    async def outcome(self, awaitable: Any) -> Any:
        """Await; an error is noted and returned instead of raised."""
        try:
            return await awaitable
        except Exception as error:
            self.ledger.error(error)
            return error

    async def until(self, true: Callable[[], Any], within: float, step: float = 0.001) -> float:
        """Wait for a condition that nothing announces. Returns how long it took; `within` if it did not come."""
        start = time.monotonic()
        while not true():
            if time.monotonic() - start >= within:
                return within
            await asyncio.sleep(step)
        return time.monotonic() - start

    async def revive(self, client: Client, within: float = 10.0) -> float:
        """Ask until there is an answer. Returns the seconds that took; notes one recovery."""
        start = time.monotonic()
        while time.monotonic() - start < within:
            if await self.outcome(client.execute("ECHO", "alive")) == "alive":
                break
            await asyncio.sleep(0.005)
        else:
            self.ledger.promise(False, f"no answer within {within} s after the fault was over")
        took = time.monotonic() - start
        self.ledger.recovered(took)
        return took

    async def close(self) -> None:
        """Look at what idle clients hold, close them, and look again."""
        figures = self.ledger.figures
        for client in self._clients:
            await self._inspect(client)
            self.ledger.look(repr(client) + repr(client.settings) + client.settings.url)
            await client.aclose()
        me = asyncio.current_task()
        await self.until(lambda: asyncio.all_tasks() <= {me}, 0.5)
        left = asyncio.all_tasks() - {me}
        figures.tasks += len(left)
        if left:
            self.ledger.promise(False, f"tasks left: {[task.get_name() for task in left][:5]}")
        for server in self._servers:
            if server.engine.running:
                figures.wires += await asyncio.to_thread(server.gone)
        self.ledger.look(_arguments())

    async def _inspect(self, client: Client) -> None:
        figures = self.ledger.figures
        state = client._states.get(asyncio.get_running_loop())
        if state is None:
            return
        topology: Any = state.topology
        pool = topology.pool
        nodes = topology.everyone() if isinstance(topology, Cluster) else [topology]
        held = lambda: sum(_held(node.shared, node.pool) for node in nodes)  # noqa: E731  # asked twice
        await self.until(lambda: not held() and not pool.lent, 1.0)
        figures.entries += held()
        figures.wires += pool.lent
        self.ledger.look(repr(topology))


def _held(shared: Any, pool: Any) -> int:
    """Entries in any queue of a client that ought to be idle."""
    wire = shared.wire
    on_wire = 0 if wire is None else wire.in_flight + wire.unsent
    return on_wire + len(shared._parked) + len(pool._line) + pool._opening + len(pool._tasks)


def _arguments() -> str:
    """The command lines of this process and of its children and theirs."""
    text = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if int((folder / "stat").read_text().rpartition(")")[2].split()[3]) >= 0:
                text.append((folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except (OSError, ValueError):
            continue
    return "\n".join(text)


def run(name: str, full: bool = False) -> Figures:
    """Run one row to its end, with its own loop. What is logged meanwhile is searched for the password."""
    line = ROWS[name]
    ledger = Ledger(line.name, line.fault, full, CANARY)
    log = io.StringIO()
    handler = logging.StreamHandler(log)
    handler.setFormatter(logging.Formatter("%(levelname)s %(name)s %(message)s"))
    root = logging.getLogger()
    level = root.level
    with ExitStack() as stack, warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        root.addHandler(handler)
        root.setLevel(logging.DEBUG)
        try:
            asyncio.run(_drive(line, ledger, full, stack))
        finally:
            root.removeHandler(handler)
            root.setLevel(level)
    for warning in seen:
        ledger.look(str(warning.message))
        ledger.promise(False, f"a warning: {warning.message}")
    text = log.getvalue()
    ledger.look(text)
    for complaint in [each for each in text.splitlines() if each.startswith("ERROR asyncio")][:3]:
        ledger.promise(False, complaint)  # an exception that nobody retrieved, a task destroyed
    return ledger.finish()


async def _drive(line: Row, ledger: Ledger, full: bool, stack: ExitStack) -> None:
    bench = Bench(ledger, full, stack)
    try:
        async with asyncio.timeout(840 if full else 90):
            await line.run(bench)
    except TimeoutError as error:
        if os.environ.get("FAULTS_RAISE"):
            raise
        ledger.promise(False, f"the row did not come to its end: {error!r}")
    finally:
        await bench.close()
