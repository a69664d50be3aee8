"""Connecting: each failure has its class and says which connection, where, and what to do."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from gravito import errors
from gravito.atlas import embedded
from gravito.atlas.client import Client
from gravito.atlas.wire import handshake
from gravito.atlas.wire.handshake import Credentials
from gravito.testing import ScriptedPeer, reply

PASSWORD = "s3cr3t-of-the-test"
QUICK: dict[str, Any] = {"name": "orders", "retry": {"attempts": 1, "base": 0.001}, "health_check": 0}


@asynccontextmanager
async def peer_on_port(serve: Callable[..., Any]) -> AsyncIterator[int]:
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def failure(url: str, **options: Any) -> errors.GravitoError:
    async with Client.from_url(url, **{**QUICK, **options}) as client:
        with pytest.raises(errors.GravitoError) as caught:
            await client.set("k", "v")
        for call in (lambda: client.blpop("k", 1), lambda: client.pipeline().set("a", 1).exec()):
            with pytest.raises(type(caught.value)):
                await call()
    assert "'orders'" in str(caught.value)
    assert PASSWORD not in f"{caught.value} {caught.value!r} {caught.value.__cause__!r}"
    assert not caught.value.maybe_applied
    assert caught.value.command == "SET"
    return caught.value


async def test_a_refused_port() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        error = await failure(f"redis://127.0.0.1:{port}")
    assert isinstance(error, errors.RefusedError)
    assert f"127.0.0.1:{port}" in str(error)
    assert "Start the server" in str(error)
    assert error.node == f"127.0.0.1:{port}"


async def test_a_refused_name_with_several_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    """asyncio joins the failures of several addresses to one error without a number."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]

        async def two_addresses(host: str, port: int, **_: Any) -> list[Any]:
            kind = (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "")
            return [(*kind, ("127.0.0.1", port)), (*kind, ("127.0.0.2", port))]

        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", two_addresses)
        error = await failure(f"redis://two-addresses.invalid:{port}")
    assert isinstance(error, errors.RefusedError)


async def test_a_socket_that_is_not_there(tmp_path: Path) -> None:
    error = await failure(f"unix://{tmp_path}/none.sock")
    assert isinstance(error, errors.RefusedError)
    assert str(tmp_path) in str(error)


async def test_a_name_that_does_not_resolve() -> None:
    error = await failure("redis://no-such-host.invalid:6379")
    assert isinstance(error, errors.NameResolutionError)
    assert "no-such-host.invalid" in str(error)


@pytest.mark.parametrize("given", [None, f":{PASSWORD}-wrong@", f"nobody:{PASSWORD}-wrong@"])
@pytest.mark.parametrize("protocol", [2, 3])
async def test_a_wrong_password(given: str | None, protocol: int) -> None:
    with embedded.Engine(directives={"requirepass": PASSWORD}) as engine:
        error = await failure(f"unix://{given or ''}{engine.path}", protocol=protocol)
        assert isinstance(error, errors.AuthenticationError)
        assert "Check username and password" in str(error)
        async with Client.from_url(f"unix://:{PASSWORD}@{engine.path}", protocol=protocol) as client:
            assert await client.ping()


async def test_a_peer_that_is_a_web_server() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()
        writer.close()

    async with peer_on_port(serve) as port:
        error = await failure(f"redis://127.0.0.1:{port}")
    assert isinstance(error, errors.ProtocolError)
    assert "Is it a Redis or Valkey server" in str(error)


async def test_a_peer_that_never_answers() -> None:
    async with ScriptedPeer((), handshake=False) as peer:
        error = await failure(f"unix://{peer.path}", timeouts={"connect": 0.05})
        assert isinstance(error, errors.ConnectTimeoutError)
        assert peer.path in str(error)
        error = await failure(
            f"unix://{peer.path}", timeouts={"connect": 5, "command": 0.05}, limits={"leased_wires": 1}
        )
        assert isinstance(error, errors.ConnectTimeoutError)


async def test_a_peer_that_closes_at_once() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with peer_on_port(serve) as port:
        error = await failure(f"redis://127.0.0.1:{port}")
    assert isinstance(error, errors.ConnectionLostError)
    assert "handshake" in str(error)


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("ERR unknown command 'HELLO'", errors.ProtocolError),
        ("LOADING the dataset", errors.LoadingError),
        ("ERR max number of clients reached", errors.MaxClientsError),
        ("NOAUTH needed", errors.AuthenticationError),
    ],
)
async def test_a_handshake_that_is_refused(said: str, kind: type[Exception]) -> None:
    async with ScriptedPeer(lambda _: Exception(said), handshake=False) as peer:
        assert type(await failure(peer.url)) is kind


async def test_a_database_that_is_not_there(gravito_engine: embedded.Engine) -> None:
    error = await failure(f"unix://{gravito_engine.ensure()}", db=12345)
    assert isinstance(error, errors.ConfigurationError)
    assert "12345" in str(error)


async def test_a_server_that_comes_back_during_the_tries() -> None:
    answers = iter([Exception("LOADING x")] * 2)
    async with ScriptedPeer(lambda _: next(answers, "fine"), handshake=False) as peer:
        options = {**QUICK, "retry": {"attempts": 5, "base": 0.001}}
        async with Client.from_url(peer.url, **options) as client:
            assert await client.execute("ANY") == "fine"


# -- the handshake's steps -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("protocol", "credentials", "db", "name", "words"),
    [
        (3, Credentials(), 0, None, [("HELLO", "3")]),
        (3, Credentials(None, "p"), 0, None, [("HELLO", "3", "AUTH", "default", "p")]),
        (
            3,
            Credentials("u", "p"),
            2,
            "n",
            [("HELLO", "3", "AUTH", "u", "p"), ("CLIENT", "SETNAME", "n"), ("SELECT", "2")],
        ),
        (2, Credentials(), 0, None, [("PING",)]),
        (2, Credentials(None, "p"), 0, None, [("AUTH", "p")]),
        (2, Credentials("u", "p"), 1, None, [("AUTH", "u", "p"), ("SELECT", "1")]),
    ],
)
def test_steps(
    protocol: int, credentials: Credentials, db: int, name: str | None, words: list[tuple[str, ...]]
) -> None:
    plan = handshake.steps(protocol, credentials, db, name)
    assert [step.args for step in plan if step.required] == words
    assert all(step.args[:2] == ("CLIENT", "SETINFO") for step in plan if not step.required)


def test_a_step_that_may_be_refused_by_old_servers() -> None:
    plan = handshake.steps(3, Credentials(), 0, None)
    for step in plan[1:]:
        handshake.check(step, errors.ResponseError("unknown subcommand"), "here")
    assert PASSWORD not in repr(Credentials("u", PASSWORD))
    assert reply(None) == b"_\r\n"
