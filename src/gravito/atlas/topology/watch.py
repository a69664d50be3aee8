"""What sentinels say of one service: who the primary is, and where its replicas are.

A connection to each sentinel stays open. It hears of `+switch-master` and of `+promoted-slave`, and then, and every
`health_check` seconds, it asks anew: the answer carries the epoch of the configuration, so that a sentinel which was
cut off cannot lead back to the old primary. https://redis.io/docs/latest/develop/reference/sentinel-clients/
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from typing import Any

import msgspec

from gravito import errors
from gravito.atlas import _addresses
from gravito.atlas.config import Settings
from gravito.atlas.wire import resp, retry
from gravito.atlas.wire.commands import Route
from gravito.atlas.wire.connect import open_wire
from gravito.atlas.wire.connection import Wire
from gravito.atlas.wire.entry import Confirm, Entry, Spec

log = logging.getLogger("gravito.atlas")

Address = tuple[str, int]

_ASK = Spec.of("SENTINEL", Route.READ_ONLY)
_SUBSCRIBE = Spec.of("SUBSCRIBE", Route.READ_ONLY)
# The leader of a failover names the new primary once it is promoted; to the others it is announced when all replicas
# have followed, which may take seconds more.
_EVENTS = ("+switch-master", "+promoted-slave")
_AWAY = ("s_down", "o_down", "disconnected")  # flags of a replica that is of no use


def node_settings(settings: Settings, address: Address, **fields: Any) -> Settings:
    """Settings of one server or sentinel among many."""
    host, port = address
    plain = {"nodes": (), "address_map": None, "service": None, "read_from": "primary"}
    away = {"sentinel_username": None, "sentinel_password": None, "sentinel_tls": None}
    return msgspec.structs.replace(
        settings, driver="redis", host=host, port=port, **{**plain, **away, **fields}
    )


class Watch:
    """The sentinels of one client in one loop, followed from the first question on.

    Args:
        settings: of the connection.
        on_change: told of each other primary, once it is known.
    """

    def __init__(self, settings: Settings, on_change: Callable[[Address], None]) -> None:
        self._settings = settings
        self._on_change = on_change
        self._reached = _addresses.translator(settings.address_map, settings.name)
        self._loop = asyncio.get_running_loop()
        self._primary: Address | None = None  # by the newest configuration that was heard of
        self._epoch = (
            -1,
            False,
        )  # of that configuration, and whether a failover to the next one has promoted it
        self._wires: dict[str, Wire] = {}  # open ones, by the sentinel's address
        self._failures: dict[str, Exception] = {}  # why a sentinel gave no answer the last time
        self._followers: list[asyncio.Task[None]] = []
        self._urge: dict[str, asyncio.Event] = {}  # makes a sentinel's follower ask, or connect, at once
        self._news: asyncio.Future[None] = self._loop.create_future()  # settled by the next answer or failure
        self._change: asyncio.Future[None] = self._loop.create_future()  # settled by the next other primary

    def __repr__(self) -> str:
        return f"<Watch {self._settings.address} {self._primary}, {len(self._wires)} sentinels>"

    def wires(self) -> list[Wire]:
        """The connections to sentinels."""
        return list(self._wires.values())

    @property
    def change(self) -> asyncio.Future[None]:
        """Settled when another primary is known; don't cancel it."""
        return self._change

    async def primary(self) -> Address:
        """The primary's address: at once if it is known, else as soon as one sentinel has answered.

        Raises:
            ConnectionError: no sentinel could be asked.
            ConfigurationError: they were asked, and none knows the service.
        """
        self._follow()
        while self._primary is None:
            if len(self._failures) == len(self._settings.nodes):
                raise self._nobody()
            await asyncio.wait({self._news})
        return self._primary

    async def replicas(self) -> list[Address]:
        """Addresses of the replicas that a sentinel holds to be up; may be empty."""
        await self.primary()
        for wire in self.wires():
            try:
                found = await self._ask(wire, "REPLICAS")
            except errors.GravitoError as error:
                log.debug("sentinel %s was no help: %s", wire.address, error)
                continue
            copies = [_named(each) for each in found]
            return [
                self._reached((each["ip"], int(each["port"])))
                for each in copies
                if not any(flag in each["flags"] for flag in _AWAY)
            ]
        return []

    def doubt(self) -> None:
        """What is known seems to be wrong: let every sentinel be asked at once."""
        for urge in self._urge.values():
            urge.set()

    async def aclose(self) -> None:
        """Close the connections."""
        followers, self._followers = self._followers, []
        for task in followers:
            task.cancel()
        await asyncio.gather(*followers, return_exceptions=True)

    # -- following -------------------------------------------------------------------------------------------

    def _follow(self) -> None:
        if self._followers and not all(task.done() for task in self._followers):
            return
        self._failures.clear()
        self._followers = [
            self._loop.create_task(self._follow_one(node), name=f"gravito sentinel {node}")
            for node in self._settings.nodes
        ]

    async def _follow_one(self, node: str) -> None:
        """Keep one sentinel's word, for ever."""
        settings = self._settings
        theirs = node_settings(
            settings,
            _addresses.split(node, 0),
            db=0,
            protocol=3,
            username=settings.sentinel_username,
            password=settings.sentinel_password,
            tls=settings.sentinel_tls,
            credential_provider=None,
        )
        urge = self._urge[node] = asyncio.Event()
        attempt = 0
        while True:
            try:
                wire = await open_wire(theirs)
            except Exception as error:
                attempt += 1
                self._failed(node, error)
            else:
                attempt = 0
                await self._listen(node, wire, urge)
            await self._wait(urge, retry.delay(settings.retry, attempt + 1, random.random))

    async def _listen(self, node: str, wire: Wire, urge: asyncio.Event) -> None:
        """Ask at once, and whenever there may be something new, until the connection ends."""
        self._wires[node] = wire
        wire.on_push = lambda push: urge.set()
        wire.on_end = lambda wire, error, sent, unsent: _settle(error, [*sent, *unsent], urge)
        pause = self._settings.health_check or None
        try:
            future = self._loop.create_future()
            packed = resp.encode(("SUBSCRIBE", *_EVENTS))
            wire.send(Confirm(future, packed, _SUBSCRIBE, None, True, need=len(_EVENTS)))
            await future
            while wire.ended is None:
                urge.clear()
                state, named = await asyncio.gather(
                    self._ask(wire, "MASTER"), self._ask(wire, "GET-MASTER-ADDR-BY-NAME")
                )
                self._learn(node, _named(state), named)
                await self._wait(urge, pause)
            self._failed(node, wire.ended)
        except Exception as error:
            self._failed(node, error)
        finally:
            self._wires.pop(node, None)
            wire.close()

    async def _wait(self, urge: asyncio.Event, seconds: float | None) -> None:
        try:
            async with asyncio.timeout(seconds):
                await urge.wait()
        except TimeoutError:
            pass

    async def _ask(self, wire: Wire, what: str) -> Any:
        future = self._loop.create_future()
        packed = resp.encode(("SENTINEL", what, self._settings.service))
        wire.send(Entry(future, packed, _ASK, None, True))
        return await future

    def _learn(self, node: str, state: dict[str, str], named: list[str]) -> None:
        announced = (named[0], int(named[1]))
        promoted = announced != (state["ip"], int(state["port"]))
        address = self._reached(announced)
        self._failures.pop(node, None)
        epoch = (int(state["config-epoch"]), promoted)
        if epoch > self._epoch or self._primary is None:
            self._epoch = epoch
            if address != self._primary:
                first = self._primary is None
                self._primary = address
                if not first:
                    self._announce(address)
        self._tell()

    def _announce(self, address: Address) -> None:
        log.warning(
            "connection '%s': the primary of '%s' is now %s",
            self._settings.name,
            self._settings.service,
            _addresses.join(*address),
        )
        change, self._change = self._change, self._loop.create_future()
        change.set_result(None)
        self._on_change(address)

    def _failed(self, node: str, error: Exception) -> None:
        log.debug("sentinel %s: %s", node, error)
        self._failures[node] = error
        self._tell()

    def _tell(self) -> None:
        news, self._news = self._news, self._loop.create_future()
        news.set_result(None)

    def _nobody(self) -> errors.GravitoError:
        """Why nobody named a primary."""
        name, service = self._settings.name, self._settings.service
        failures = list(self._failures.values())
        unknown = [error for error in failures if "No such master" in str(error)]
        if len(unknown) == len(failures):
            return errors.ConfigurationError(
                f"connection '{name}': the sentinels know no service {service!r}",
                field="service",
                value=service,
            )
        cause = next((error for error in failures if retry.is_final(error)), failures[0])
        text = f"connection '{name}': no sentinel named a primary of '{service}': {cause}"
        if isinstance(cause, errors.AuthenticationError):
            return errors.AuthenticationError(f"{text} (sentinel_username and sentinel_password set these)")
        return errors.ConnectionError(text)


def _settle(error: Exception, entries: list[Entry], urge: asyncio.Event) -> None:
    for entry in entries:
        entry.fail(error)
    urge.set()


def _named(reply: Any) -> dict[str, str]:
    """A map, as RESP3 gives it, or names and values in turn."""
    if isinstance(reply, dict):
        return reply
    return dict(zip(reply[::2], reply[1::2], strict=True))
