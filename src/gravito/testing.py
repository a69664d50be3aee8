"""Helpers for tests: a scripted RESP peer, an encoder of replies, and pytest fixtures on the embedded engine.

The fixtures are `gravito_engine` (one private engine for the whole run), `redis` (a client on its empty
database), `gravito_cache` (a cache on that, and the default one), `horizon` (a job queue on that) and `gravito_protocol` (the RESP version). Take them with `pytest_plugins = ["gravito.testing"]` in the top-level `conftest.py`. Everything else
here works without pytest.
"""

from __future__ import annotations

import asyncio
import inspect
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import hiredis

if TYPE_CHECKING:
    from gravito.atlas.client import Client
    from gravito.atlas.embedded import Engine
    from gravito.horizon import Horizon
    from gravito.stasis import Cache

__all__ = ["CUT", "SILENCE", "Attribute", "Push", "Raw", "ScriptedPeer", "Simple", "Verbatim", "reply"]

_LONGEST_INTEGER = 2**63  # larger numbers travel as RESP3 big numbers
_HANDSHAKE = frozenset({b"HELLO", b"AUTH", b"SELECT"})

Command = list[bytes]
Script = Callable[[Command], Any] | Iterable[Any]


class Raw(bytes):
    """Bytes that are sent as they are: several replies at once, or what is no RESP at all."""


class Simple(str):
    """A simple string, as `+OK`."""

    __slots__ = ()


class Verbatim(str):
    """A verbatim string of format `txt`."""

    __slots__ = ()


class Push(list[Any]):
    """A RESP3 push."""


class Attribute(dict[Any, Any]):
    """A RESP3 attribute, which stands before the reply that it belongs to."""


class _Sign:
    def __init__(self, name: str) -> None:
        self._name = name

    def __repr__(self) -> str:
        return self._name


SILENCE = _Sign("SILENCE")  # a scripted answer: none
CUT = _Sign("CUT")  # a scripted answer: the connection ends


def reply(value: Any) -> bytes:
    """Encode a reply as a RESP3 server would.

    Args:
        value: None, bool, int, float, str and bytes (bulk strings), list and tuple, dict, set and frozenset, an
            exception (an error reply of its text), or one of `Simple`, `Verbatim`, `Push`, `Attribute`, `Raw`.

    Raises:
        TypeError: a value of another type.

    See https://github.com/redis/redis-specifications/blob/master/protocol/RESP3.md
    """
    if isinstance(value, Raw):
        return bytes(value)
    scalar = _scalar(value)
    if scalar is not None:
        return scalar
    if isinstance(value, dict):
        mark = b"|" if isinstance(value, Attribute) else b"%"
        return _several(mark, len(value), [part for pair in value.items() for part in pair])
    if isinstance(value, (list, tuple)):
        return _several(b">" if isinstance(value, Push) else b"*", len(value), value)
    if isinstance(value, (set, frozenset)):
        return _several(b"~", len(value), value)
    raise TypeError(f"there is no reply of type {type(value).__name__}")


def _scalar(value: Any) -> bytes | None:
    if value is None:
        return b"_\r\n"
    if isinstance(value, bool):
        return b"#t\r\n" if value else b"#f\r\n"
    if isinstance(value, int):
        return (b":%d\r\n" if -_LONGEST_INTEGER <= value < _LONGEST_INTEGER else b"(%d\r\n") % value
    if isinstance(value, float):
        return b",%s\r\n" % repr(value).encode()
    if isinstance(value, Exception):
        return b"-%s\r\n" % str(value).encode()
    if isinstance(value, Simple):
        return b"+%s\r\n" % value.encode()
    if isinstance(value, Verbatim):
        text = value.encode()
        return b"=%d\r\ntxt:%s\r\n" % (len(text) + 4, text)
    if isinstance(value, (str, bytes)):
        data = value.encode() if isinstance(value, str) else value
        return b"$%d\r\n%s\r\n" % (len(data), data)
    return None


def _several(mark: bytes, count: int, parts: Iterable[Any]) -> bytes:
    return b"%s%d\r\n%s" % (mark, count, b"".join(reply(part) for part in parts))


class ScriptedPeer:
    """A server that says what its script says, on a Unix socket: for tests of what no real server does on demand.

    Example::

        async with ScriptedPeer(lambda command: command[1]) as peer:
            client = Client.from_url(peer.url)
            assert await client.execute("ECHO", "x") == "x"

    Args:
        script: a function (plain or async) that is given each command as a list of bytes and returns the answer,
            or answers one after the other, `SILENCE` behind the last. An answer is anything that `reply` takes,
            or `SILENCE`, or `CUT`. Answers keep the order of the commands of their connection.
        handshake: answer HELLO, AUTH, SELECT and CLIENT SETINFO or SETNAME by itself, and keep them out of
            `commands` and of the script.
        pieces: send answers in pieces of so many bytes, each of which the client reads by itself.
    """

    def __init__(self, script: Script = (), *, handshake: bool = True, pieces: int | None = None) -> None:
        self.commands: list[Command] = []  # received so far, of all connections
        self.connections = 0  # accepted so far
        self.pieces = pieces
        self._answer = script if callable(script) else _one_after_the_other(script)
        self._handshake = handshake
        self._folder = ""
        self._server: asyncio.Server | None = None
        self._writers: list[asyncio.StreamWriter] = []  # open connections, oldest first
        self._readers: list[asyncio.StreamReader] = []  # theirs
        self._news = asyncio.Condition()  # a command came, or a connection
        self._reading = asyncio.Event()  # cleared while the peer reads nothing
        self._reading.set()

    @property
    def path(self) -> str:
        """The Unix socket."""
        return str(Path(self._folder) / "peer.sock")

    @property
    def url(self) -> str:
        """What a client is given."""
        return f"unix://{self.path}"

    async def __aenter__(self) -> Self:
        self._folder = tempfile.mkdtemp(prefix="gravito-peer-")
        await self.listen()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.refuse()
        self._reading.set()
        self.cut()
        shutil.rmtree(self._folder, ignore_errors=True)

    async def listen(self) -> None:
        """Accept connections, again after `refuse`."""
        self._server = await asyncio.start_unix_server(self._serve, self.path)

    async def refuse(self) -> None:
        """Accept no further connections; those that are open stay."""
        if self._server is not None:
            self._server.close()
            self._server = None
            Path(self.path).unlink(missing_ok=True)  # noqa: ASYNC240  # asyncio leaves it there

    async def received(self, count: int) -> list[Command]:
        """Wait until so many commands have come, and return all of them."""
        async with self._news:
            await self._news.wait_for(lambda: len(self.commands) >= count)
        return self.commands

    async def connected(self, count: int) -> None:
        """Wait until so many connections were accepted."""
        async with self._news:
            await self._news.wait_for(lambda: self.connections >= count)

    async def send(self, *values: Any, pieces: int | None = None) -> None:
        """Send something on the newest connection without being asked: pushes, late replies.

        Args:
            *values: what `reply` takes.
            pieces: bytes of each piece; as the peer's if None.
        """
        await self._write(self._writers[-1], b"".join(reply(value) for value in values), pieces)

    def cut(self) -> None:
        """End all connections now."""
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    def deaf(self) -> None:
        """Read nothing more, so that what clients write piles up; `hear` ends that."""
        self._reading.clear()

    def hear(self) -> None:
        """Read again."""
        self._reading.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        async with self._news:
            self.connections += 1
            self._news.notify_all()
        parser = hiredis.Reader()
        try:
            while await self._reading.wait() and (data := await reader.read(65536)):
                parser.feed(data)
                while (command := parser.gets()) is not False:
                    await self._take(command, writer)
        except (ConnectionError, asyncio.CancelledError):
            pass  # the client went away, or the test did
        finally:
            writer.transport.abort()
            if writer in self._writers:
                self._writers.remove(writer)

    async def _take(self, command: Command, writer: asyncio.StreamWriter) -> None:
        if self._handshake and _greets(command):
            await self._write(writer, reply({"proto": 3} if command[0] == b"HELLO" else Simple("OK")), None)
            return
        async with self._news:
            self.commands.append(command)
            self._news.notify_all()
        answer = self._answer(command)
        if inspect.isawaitable(answer):
            answer = await answer
        if answer is CUT:
            writer.transport.abort()
        elif answer is not SILENCE:
            await self._write(writer, reply(answer), None)

    async def _write(self, writer: asyncio.StreamWriter, data: bytes, pieces: int | None) -> None:
        pieces = pieces or self.pieces
        if pieces is None:
            writer.write(data)
            return
        for start in range(0, len(data), pieces):
            writer.write(data[start : start + pieces])
            for _ in range(3):  # a client in this loop reads the piece before the next one is written
                await asyncio.sleep(0)


def _greets(command: Sequence[bytes]) -> bool:
    name = command[0].upper()
    return name in _HANDSHAKE or (name == b"CLIENT" and command[1].upper() in (b"SETINFO", b"SETNAME"))


def _one_after_the_other(answers: Iterable[Any]) -> Callable[[Command], Any]:
    rest = iter(answers)
    return lambda command: next(rest, SILENCE)


try:
    import pytest
except ImportError:  # an application's own tests may use another runner
    pass
else:
    __all__ += ["gravito_cache", "gravito_engine", "gravito_protocol", "horizon", "redis"]

    @pytest.fixture(scope="session")
    def gravito_engine() -> Iterator[Engine]:
        """A private embedded engine for the whole run."""
        from gravito.atlas.embedded import Engine  # noqa: PLC0415  # only who asks for it starts one

        with Engine() as engine:
            yield engine

    @pytest.fixture(scope="session")
    def gravito_protocol() -> int | None:
        """The RESP version of `redis`; override it to try an application with another one."""
        return None

    @pytest.fixture
    def horizon(redis: Client) -> Iterator[Horizon]:
        """A Horizon on the empty engine, which jobs mean by themselves; for its helpers see `gravito.horizon.testing`."""
        from gravito.horizon import Horizon  # noqa: PLC0415  # only who asks for it
        from gravito.horizon._current import leave  # noqa: PLC0415

        made = Horizon(redis).use()
        yield made
        leave(made)

    @pytest.fixture
    def redis(gravito_engine: Engine, gravito_protocol: int | None) -> Iterator[Client]:
        """A client on the engine's database, which is empty at the start of each test.

        It is made for text; `redis.with_options(decode_responses=False)` reads bytes.
        """
        from gravito.atlas.client import Client  # noqa: PLC0415  # only who asks for it

        path = gravito_engine.ensure()
        empty(path)
        client = Client.from_url(f"unix://{path}", protocol=gravito_protocol)
        yield client
        _close(client)

    @pytest.fixture  # not `cache`, which is pytest's own
    def gravito_cache(redis: Client) -> Iterator[Cache]:
        """An empty cache, which is the default one for the test: decorators and integrations use it too."""
        from gravito.stasis import Cache, set_default_cache  # noqa: PLC0415  # only who asks for it

        made = Cache(connection=redis)
        set_default_cache(made)
        yield made
        set_default_cache(None)
        if "_core" in made.__dict__:  # the loop is closed already: nothing is reported, and nothing held
            made._core.tallies.close()


def empty(path: str) -> None:
    """Empty all databases of the server at this Unix socket, and forget its scripts and functions. Blocking."""
    from redis import Redis, ResponseError  # noqa: PLC0415  # the one blocking call here

    with Redis(unix_socket_path=path) as plain:
        plain.flushall()
        plain.script_flush()
        try:
            plain.function_flush()
        except ResponseError:  # older than Redis 7, which brought functions
            pass


def _close(client: Client) -> None:
    """Close a client whose test is over; its loop may be closed already, and must not be running."""
    for loop in list(client._states):
        if not loop.is_closed() and not loop.is_running():
            loop.run_until_complete(client.aclose())
