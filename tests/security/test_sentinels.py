"""TLS and credentials of sentinels and of the servers that they watch, apart from each other."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any, NamedTuple

import pytest
import redis
from tests.security.authority import Authority
from tests.security.conftest import free_port
from tests.servers.catalogue import needed

from gravito import errors
from gravito.atlas import TLS, Client, Settings
from gravito.atlas._local_sentinels import _SentinelEngine
from gravito.atlas._nodes import LEAN, until
from gravito.atlas.embedded import Directive, Engine

HOST = "127.0.0.1"
SERVICE = "guarded"
DATA, WATCH = "of-the-servers", "of-the-sentinels"


class Guarded(NamedTuple):
    """A primary, a replica and a sentinel that speak TLS alone."""

    sentinel: int
    data: tuple[int, int]
    trusts: Authority  # signed the servers' certificate
    watchers: Authority  # signed the sentinel's

    def settings(self, **fields: Any) -> Settings:
        """What a user would write, but for `fields`."""
        right: dict[str, Any] = {
            "username": "app",
            "password": DATA,
            "tls": TLS(ca_file=self.trusts.file),
            "sentinel_username": "watcher",
            "sentinel_password": WATCH,
            "sentinel_tls": TLS(ca_file=self.watchers.file),
            "retry": {"attempts": 0},
        }
        given = {"driver": "sentinel", "nodes": (f"{HOST}:{self.sentinel}",), "service": SERVICE}
        return Settings.from_mapping("redis", {**given, **right, **fields})

    def ask(self, port: int, *args: Any) -> Any:
        """One command, by another client."""
        of_sentinel = port == self.sentinel
        with redis.Redis(
            host=HOST,
            port=port,
            username="watcher" if of_sentinel else "app",
            password=WATCH if of_sentinel else DATA,
            ssl=True,
            ssl_ca_certs=(self.watchers if of_sentinel else self.trusts).file,
            decode_responses=True,
            protocol=2,
        ) as plain:
            plain.response_callbacks.clear()
            return plain.execute_command(*args)

    def primary(self) -> int:
        """The primary's port, by the sentinel."""
        return int(self.ask(self.sentinel, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE)[1])


def _lines(
    port: int, certificate: tuple[str, str], trusted: str, user: str, password: str
) -> dict[str, Directive]:
    return {
        "tls-port": port,
        "tls-cert-file": certificate[0],
        "tls-key-file": certificate[1],
        "tls-ca-cert-file": trusted,
        "tls-auth-clients": "no",
        "tls-replication": "yes",
        "user": [user, "on", f">{password}", "~*", "&*", "+@all"],
    }


@pytest.fixture(scope="module")
def guarded(authority: Authority, stranger: Authority) -> Iterator[Guarded]:
    binary = needed("redis7")
    ports = free_port(), free_port(), free_port()
    topology = Guarded(ports[2], ports[:2], authority, stranger)
    with ExitStack() as stack:
        for port in topology.data:
            data = _lines(port, authority.certificate(HOST), authority.file, "app", DATA)
            more: dict[str, Directive] = {"masteruser": "app", "masterauth": DATA, **LEAN}
            stack.enter_context(Engine(directives={**data, **more}, binary=binary))
        # It trusts the servers' authority, and shows a certificate of another.
        own = _lines(topology.sentinel, stranger.certificate(HOST), authority.file, "watcher", WATCH)
        stack.enter_context(_SentinelEngine(directives=own, binary=binary))
        for port in ports:
            topology.ask(port, "ACL", "SETUSER", "default", "off")
        first, second = topology.data
        topology.ask(second, "REPLICAOF", HOST, first)
        topology.ask(topology.sentinel, "SENTINEL", "MONITOR", SERVICE, HOST, first, 1)
        for name, value in (("auth-user", "app"), ("auth-pass", DATA), ("failover-timeout", 5000)):
            topology.ask(topology.sentinel, "SENTINEL", "SET", SERVICE, name, value)
        until(lambda: topology.ask(second, "ROLE")[3] == "connected", "the replica to connect")
        until(lambda: _watched(topology), "the sentinel to see the replica")
        yield topology


def _watched(topology: Guarded) -> bool:
    copies = topology.ask(topology.sentinel, "SENTINEL", "REPLICAS", SERVICE)
    flags = [dict(zip(copy[::2], copy[1::2], strict=True))["flags"] for copy in copies]
    return flags == ["slave"]


async def test_everything_by_tls(guarded: Guarded) -> None:
    async with Client(guarded.settings()) as client:
        assert await client.set("k", "v")
        assert await client.pipeline().incr("n").incr("n").exec() == [1, 2]
        async with await client.subscribe("news") as news:
            await client.publish("news", "hello")
            assert (await news.get(5)).data == "hello"  # type: ignore[union-attr]
        assert (await client.role())[0] == "master"
        await client.delete("k", "n")


async def test_reads_from_a_replica_and_a_failover_by_tls(guarded: Guarded) -> None:
    async with Client(guarded.settings(read_from="replica")) as client:
        await client.set("k", "v")
        assert await client.wait(1, 5000) == 1
        assert await client.get("k") == "v"
        before = guarded.primary()
        await asyncio.to_thread(guarded.ask, guarded.sentinel, "SENTINEL", "FAILOVER", SERVICE)
        await asyncio.to_thread(until, lambda: guarded.primary() != before, "the failover")
        assert await client.set("k", "again")
        assert guarded.ask(guarded.primary(), "GET", "k") == "again"


@pytest.mark.parametrize(
    ("wrong", "kind", "words"),
    [
        ({"sentinel_password": "x"}, errors.AuthenticationError, "sentinel_username and sentinel_password"),
        ({"sentinel_username": None, "sentinel_password": None}, errors.AuthenticationError, "sentinel_username"),
        ({"sentinel_username": "app", "sentinel_password": DATA}, errors.AuthenticationError, "sentinel_username"),
        ({"password": "x"}, errors.AuthenticationError, "username-password"),
        ({"username": "watcher", "password": WATCH}, errors.AuthenticationError, "username-password"),
        ({"sentinel_tls": None}, errors.ConnectionError, "no sentinel named"),
        ({"tls": None}, errors.ConnectionError, "speaks TLS"),
    ],
    ids=["sentinel-password", "no-credentials", "the-servers-at-the-sentinel", "password", "the-sentinels-at-the-server",
         "sentinel-plain", "plain"],
)  # fmt: skip
async def test_each_side_wants_its_own_credentials(
    guarded: Guarded, wrong: dict[str, Any], kind: type[Exception], words: str
) -> None:
    async with Client(guarded.settings(**wrong, timeouts={"connect": 2.0, "command": 3.0})) as client:
        with pytest.raises(kind, match=words) as caught:
            await client.ping()
    for secret in (DATA, WATCH):
        assert secret not in str(caught.value)


@pytest.mark.parametrize("side", ["tls", "sentinel_tls"])
async def test_each_side_has_its_own_authority(guarded: Guarded, side: str) -> None:
    """What one side trusts is nothing to the other."""
    swapped = {"tls": guarded.watchers, "sentinel_tls": guarded.trusts}[side]
    settings = guarded.settings(
        **{side: TLS(ca_file=swapped.file)}, timeouts={"connect": 2.0, "command": 3.0}
    )
    async with Client(settings) as client:
        with pytest.raises(errors.ConnectionError, match=r"(?i)certificate"):
            await client.ping()
