"""Every command that the server lists, subcommands too, is reachable: by a method or by `execute`."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import redis

from gravito.atlas import embedded
from gravito.atlas.client import Client

from .clients import atlas

pytestmark = pytest.mark.needs("COMMAND LIST")

# Methods whose name is not the command's in lower case; of a container, the method takes the subcommand.
METHODS = {
    "DEL": "delete",
    "DISCARD": "pipeline",
    "EXEC": "pipeline",
    "MULTI": "pipeline",
    "PUNSUBSCRIBE": "pubsub",
    "SUNSUBSCRIBE": "pubsub",
    "UNSUBSCRIBE": "pubsub",
}
CONTAINER_METHODS = {"CLUSTER": "cluster", "OBJECT": "object"}

# No method of redis-py's: only `execute` sends these.
EXECUTE_ONLY = frozenset(
    name.replace("|", " ")
    for name in [
        "ASKING",
        "CLIENT|CACHING",
        "CLIENT|CAPA",
        "CLIENT|HELP",
        "CLIENT|IMPORT-SOURCE",
        "CLUSTERSCAN",
        "COMMAND|HELP",
        "COMMANDLOG|GET",
        "COMMANDLOG|HELP",
        "COMMANDLOG|LEN",
        "COMMANDLOG|RESET",
        "CONFIG|HELP",
        "DEBUG",
        "DELIFEQ",
        "FUNCTION|HELP",
        "GEORADIUS_RO",
        "GEORADIUSBYMEMBER_RO",
        "LATENCY|HELP",
        "MODULE|HELP",
        "PFDEBUG",
        "PFSELFTEST",
        "PUBSUB|HELP",
        "REPLCONF",
        "RESTORE-ASKING",
        "SCRIPT|HELP",
        "SCRIPT|SHOW",
        "SLOWLOG|HELP",
        "XGROUP|HELP",
        "XINFO|HELP",
        "XSETID",
    ]
)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "command" in metafunc.fixturenames:
        metafunc.parametrize("command", SERVER_COMMANDS)
    if "callable_command" in metafunc.fixturenames:
        metafunc.parametrize("callable_command", [name for name in SERVER_COMMANDS if name not in CONTAINERS])


def server_commands() -> list[str]:
    """The names of `COMMAND LIST`, subcommands ("CONFIG GET") among them."""
    with (
        tempfile.TemporaryDirectory() as folder,
        embedded.Engine(folder) as engine,
        redis.Redis(unix_socket_path=engine.ensure()) as client,
    ):
        try:
            names = client.command_list()
        except redis.ResponseError:  # older than Redis 7: no subcommands
            names = [name.encode() for name in client.command()]
        return sorted(name.decode().upper().replace("|", " ") for name in names)


SERVER_COMMANDS = server_commands()

# They need a subcommand; COMMAND works without one too.
CONTAINERS = {name.partition(" ")[0] for name in SERVER_COMMANDS if " " in name} - {"COMMAND"}


def method_of(name: str) -> str | None:
    """The method that sends the command, or None."""
    container = name.partition(" ")[0]
    if name in METHODS:
        return METHODS[name]
    if " " in name and container in CONTAINER_METHODS:
        return CONTAINER_METHODS[container]
    method = name.lower().replace(" ", "_").replace("-", "_")
    return method if hasattr(Client, method) else None


def test_a_command_has_a_method_or_is_known_to_have_none(callable_command: str) -> None:
    method = method_of(callable_command)
    if method is None:
        assert callable_command in EXECUTE_ONLY
    else:
        assert callable(getattr(Client, method))
        assert callable_command not in EXECUTE_ONLY


@pytest.mark.newest
def test_the_list_of_commands_without_a_method_is_not_stale() -> None:
    assert set(SERVER_COMMANDS) >= EXECUTE_ONLY


@pytest.fixture
async def client(socket_path: str, wipe: Callable[[], None]) -> AsyncIterator[Any]:
    async with atlas(socket_path) as client:
        yield client


async def answer(client: Any, *words: str) -> str:
    """What the server says to a command: the reply as text, or the error's."""
    try:
        return str(await client.execute(*words, decode_responses=False))
    except redis.ResponseError as error:
        return str(error)


async def refuse_arguments(client: Any, name: str) -> None:
    """Its arity error shows that the server knows it, and nothing is done."""
    assert "wrong number of arguments" in await answer(client, name, "surplus", "surplus")


async def abort_shutdown(client: Any, name: str) -> None:
    assert "No shutdown in progress" in await answer(client, "SHUTDOWN", "ABORT")


async def become_primary(client: Any, name: str) -> None:
    assert await answer(client, name, "NO", "ONE") in ("b'OK'", "True")


async def in_a_session(client: Any, name: str) -> None:
    """MULTI by hand, ended both ways."""
    async with client.client() as session:
        for end in ("EXEC", "DISCARD"):
            assert await session.execute_command("MULTI") in (True, "OK")
            assert await session.execute_command("ECHO", "x") == "QUEUED"
            assert await session.execute_command(end) in (["x"], True, "OK")


async def watch_in_a_session(client: Any, name: str) -> None:
    async with client.client() as session:
        assert await session.execute_command("WATCH", "k") is True
        assert await session.execute_command("UNWATCH") is True


async def monitor(client: Any, name: str) -> None:
    async with client.monitor() as seen:
        await client.echo("observed")
        async for command in seen.listen():
            if "observed" in command["command"]:
                return


async def subscribe_and_leave(client: Any, name: str) -> None:
    """The six of pub/sub, on redis-py's PubSub object."""
    verb = name.lower().replace("unsub", "sub")
    async with client.pubsub() as pubsub:
        await getattr(pubsub, verb)("channel")
        assert (await pubsub.get_message(timeout=5))["type"] == verb
        await getattr(pubsub, verb.replace("sub", "unsub"))("channel")
        assert (await pubsub.get_message(timeout=5))["type"] == verb.replace("sub", "unsub")


async def end_only_its_own_wire(client: Any, name: str) -> None:
    """The connection that sent it ends or is reset; nobody else's is."""
    assert await answer(client, name) in ("RESET", "True")


# Commands that would end the engine, change its role, or hold a connection if they were sent bare. (PSYNC and
# DEBUG are refused bare, for want of arguments.)
SPECIAL: dict[str, Callable[[Any, str], Awaitable[None]]] = {
    "DISCARD": in_a_session,
    "EXEC": in_a_session,
    "MONITOR": monitor,
    "MULTI": in_a_session,
    "PFSELFTEST": refuse_arguments,
    "PSUBSCRIBE": subscribe_and_leave,
    "PUNSUBSCRIBE": subscribe_and_leave,
    "QUIT": end_only_its_own_wire,
    "REPLICAOF": become_primary,
    "RESET": end_only_its_own_wire,
    "SHUTDOWN": abort_shutdown,
    "SLAVEOF": become_primary,
    "SSUBSCRIBE": subscribe_and_leave,
    "SUBSCRIBE": subscribe_and_leave,
    "SUNSUBSCRIBE": subscribe_and_leave,
    "SYNC": refuse_arguments,
    "UNSUBSCRIBE": subscribe_and_leave,
    "UNWATCH": watch_in_a_session,
    "WATCH": watch_in_a_session,
}


async def test_the_server_answers_the_command(command: str, client: Any) -> None:
    if command in SPECIAL:
        await SPECIAL[command](client, command)
    else:
        # Without arguments: the reply, or an error that only a command which exists can give.
        assert not (await answer(client, command)).lower().startswith("unknown")
    assert await client.ping() is True


def test_special_cases_are_commands_of_the_server() -> None:
    assert set(SERVER_COMMANDS) >= set(SPECIAL)


async def test_an_unknown_command_would_be_noticed(client: Any) -> None:
    assert (await answer(client, "NO.SUCH")).startswith("unknown command")
    assert (await answer(client, "CONFIG NOPE")).startswith("unknown subcommand")
