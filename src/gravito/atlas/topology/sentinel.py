"""A primary that sentinels name: as one server, except that it may be another one tomorrow."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from typing import Any

from gravito import errors
from gravito.atlas import _addresses
from gravito.atlas.config import Settings
from gravito.atlas.topology.standalone import Standalone
from gravito.atlas.topology.watch import Address, Watch, node_settings
from gravito.atlas.wire import resp, retry
from gravito.atlas.wire.circuit import Circuit
from gravito.atlas.wire.commands import Route
from gravito.atlas.wire.connect import open_wire
from gravito.atlas.wire.connection import Wire
from gravito.atlas.wire.entry import Entry, Spec
from gravito.atlas.wire.meter import Hooks
from gravito.atlas.wire.shared import SharedWire

log = logging.getLogger("gravito.atlas")

_LETS_GO_WITHIN = 1.0  # seconds for an old primary to let go who waits there
_UNBLOCK = Spec.of("CLIENT UNBLOCK")
_ROLE = Spec.of("ROLE", Route.NEUTRAL)
_DEMOTED = (errors.ReadOnlyError,)  # what a primary answers to a write once it is a replica


class Sentinel(Standalone):
    """The wires of one client in one event loop, to whoever is the primary now.

    Every new wire goes to the primary that the sentinels name, and asks it for its role first. When they name
    another one, all wires to the old one are closed: what was in flight there fails or is sent again by the usual
    rule.
    """

    def __init__(self, settings: Settings, hooks: Hooks) -> None:
        self._to_primary: Callable[[Entry], None] = _nowhere  # set by Standalone's first route
        self.readers: SharedWire | None = None  # to a replica, when reads go there
        super().__init__(settings, hooks)
        self.watch = Watch(settings, self._moved)
        self._tasks: set[asyncio.Task[None]] = set()  # old primaries that are being left
        self._opened: set[Wire] = set()  # every wire to a primary, those of subscriptions and leases too
        self.shared.elsewhere = self.pool.elsewhere = _DEMOTED
        self.shared.on_elsewhere = self.pool.on_elsewhere = self.watch.doubt
        if settings.read_from == "replica":
            self._to_primary = self.shared.send
            self.readers = SharedWire(
                settings, self._open_reader, lambda send: None, self.meter, hooks, Circuit(settings)
            )
            self.send = self._by_kind

    def _route(self, send: Callable[[Entry], None]) -> None:
        if self.readers is None:
            super()._route(send)
        else:
            self._to_primary = send

    def _by_kind(self, entry: Entry) -> None:
        if entry.spec.flags & Route.READ_ONLY and self.readers is not None:
            self.readers.send(entry)
        else:
            self._to_primary(entry)

    def wires(self) -> list[Wire]:
        """All wires: shared, leased, to a replica, and to the sentinels."""
        readers = self.readers.wires() if self.readers is not None else []
        return [*super().wires(), *readers, *self.watch.wires()]

    async def open(self) -> Wire:
        """A new wire to the primary, unless the breaker is open.

        A failover takes seconds: it is waited for, within `timeouts.connect`.
        """
        wire = await self.circuit.attempt(self._open_primary)
        self.meter.connects += 1
        wire.counted = True
        self._opened = {each for each in self._opened if each.ended is None}
        self._opened.add(wire)
        return wire

    async def _open_primary(self) -> Wire:
        deadline = self.loop.time() + self.settings.timeouts.connect
        attempt = 1
        while True:
            address = await self.watch.primary()
            change = self.watch.change
            try:
                wire = await self._unless(change, address)
                if wire is not None:
                    return wire
                continue  # another primary was named meanwhile
            except errors.GravitoError as error:
                left = deadline - self.loop.time()
                if left <= 0 or retry.is_final(error):
                    raise
                failure = error
            log.debug("no primary of '%s', try %d: %s", self.settings.name, attempt, failure)
            self.watch.doubt()
            pause = max(retry.delay(self.settings.retry, attempt, random.random), 0.01)
            await asyncio.wait({change}, timeout=min(left, pause))
            attempt += 1

    async def _unless(self, change: asyncio.Future[None], address: Address) -> Wire | None:
        """A wire to this primary; None when another one is named before it answers."""
        task = self.loop.create_task(self._open_at(address, "master"))
        both: set[asyncio.Future[Any]] = {task, change}
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        except BaseException:
            await _abandon(task)
            raise
        if not change.done():
            return task.result()
        await _abandon(task)
        return None

    async def _open_at(self, address: Address, role: str) -> Wire:
        """A wire to a server that says itself what it is. Raises ConnectionError if it is something else."""
        settings = node_settings(self.settings, address)
        wire = await open_wire(settings, self.meter)
        try:
            future = self.loop.create_future()
            wire.send(Entry(future, resp.encode(("ROLE",)), _ROLE, None, True))
            found = (await future)[0]
        except errors.NoPermissionError:  # who may not ask has the sentinels' word
            return wire
        except BaseException:
            wire.close()
            raise
        if found == role:
            return wire
        wire.close()
        raise errors.ConnectionError(
            f"connection '{self.settings.name}' ({settings.address}): its role is {found}, not {role}; "
            "the sentinels will know better soon"
        ).about(node=settings.address)

    async def _open_reader(self, fresh: bool) -> Wire:
        """A wire to any replica, or to the primary while there is none."""
        addresses = await self.watch.replicas()
        random.shuffle(addresses)
        for address in addresses:
            try:
                wire = await self._open_at(address, "slave")
            except errors.GravitoError as error:
                log.debug("a replica of '%s' was no help: %s", self.settings.name, error)
                continue
            self.meter.connects += 1
            wire.counted = True
            return wire
        return await self.open()

    def _moved(self, address: Address) -> None:
        """Close what leads to the old primary: it may be silent for long, and what it says counts no more.

        Blocking commands wait there in vain: an old primary that lives is asked to let them go, for then it is certain
        that they were not served, and they go on waiting at the new one.
        """
        where = _addresses.join(*address)
        waiting: dict[str, dict[Wire, asyncio.Event]] = {}
        for wire in [wire for wire in self._opened if wire.address != where]:
            let_go = self.pool.let_go(wire)
            if let_go is None:
                wire.fail(_gone(wire, where))
            else:
                waiting.setdefault(wire.address, {})[wire] = let_go
        self.pool.drop_idle()
        for old, wires in waiting.items():
            task = self.loop.create_task(self._let_go(old, wires, where), name=f"gravito let go {old}")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _let_go(self, old: str, wires: dict[Wire, asyncio.Event], where: str) -> None:
        """Ask by another wire, for these wait. Whoever is not let go in time is in doubt."""
        try:
            async with asyncio.timeout(_LETS_GO_WITHIN):
                wire = await open_wire(node_settings(self.settings, _addresses.split(old, 6379)), self.meter)
                try:
                    for each in wires:
                        future = self.loop.create_future()
                        words = ("CLIENT", "UNBLOCK", each.client_id, "ERROR")
                        wire.send(Entry(future, resp.encode(words), _UNBLOCK, None, True))
                        await future
                finally:
                    wire.close()
                for let_go in wires.values():
                    await let_go.wait()
        except (errors.GravitoError, TimeoutError) as error:
            log.debug("'%s': %s lets nobody go: %s", self.settings.name, old, error)
        finally:
            for each in wires:
                each.fail(_gone(each, where))

    async def aclose(self) -> None:
        """Finish what is in flight, within `timeouts.drain`, and close every wire."""
        try:
            await super().aclose()
            if self.readers is not None:
                await self.readers.aclose(self.settings.timeouts.drain)
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await self.watch.aclose()


async def _abandon(task: asyncio.Task[Wire]) -> None:
    task.cancel()
    outcome = (await asyncio.gather(task, return_exceptions=True))[0]
    if isinstance(outcome, Wire):  # it was there in the same moment
        outcome.close()


def _gone(wire: Wire, where: str) -> errors.ConnectionLostError:
    return errors.ConnectionLostError(f"the primary is no longer {wire.address} but {where}")


def _nowhere(entry: Entry) -> None:
    raise AssertionError("sent before there was a wire")
