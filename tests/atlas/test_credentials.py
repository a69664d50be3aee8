"""Credentials: fixed, from every kind of provider, and when they change while connected."""

from __future__ import annotations

import asyncio
import functools
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis.credentials import CredentialProvider, UsernamePasswordCredentialProvider

from gravito import errors
from gravito.atlas import Client, Retry
from gravito.atlas.embedded import Engine
from gravito.testing import ScriptedPeer, Simple

CANARY = "canary-6f1d"


@pytest.fixture
async def user(redis: Client) -> AsyncIterator[Client]:
    """The administrator's client; there is a user `app` with the canary as its password."""
    await redis.acl_setuser("app", enabled=True, passwords=[f"+{CANARY}"], commands=["+@all"], keys=["*"])
    yield redis
    await redis.acl_deluser("app")
    await redis.aclose()


def client_of(admin: Client, provider: Any, **options: Any) -> Client:
    return Client.from_url(admin.settings.url, credential_provider=provider, **options)


async def whoami(client: Client) -> str:
    async with client:
        return str(await client.acl_whoami())


async def plain_async() -> tuple[str, str]:
    return "app", CANARY


class Plain(CredentialProvider):
    def get_credentials(self) -> tuple[str, str]:
        self.thread = threading.get_ident()
        return "app", CANARY


class Async(Plain):
    async def get_credentials_async(self) -> tuple[str, str]:
        return "app", CANARY

    def get_credentials(self) -> tuple[str, str]:
        raise AssertionError("the async one is there")


class AsyncCall:
    async def __call__(self) -> tuple[str, str]:
        return "app", CANARY


PROVIDERS = {
    "a function": lambda: ("app", CANARY),
    "an async function": plain_async,
    "a function that gives an awaitable": lambda: plain_async(),  # noqa: PLW0108  # that it is no coroutine function matters
    "a partial": functools.partial(plain_async),
    "an object that is called": AsyncCall(),
    "redis-py's": UsernamePasswordCredentialProvider("app", CANARY),
    "redis-py's base class": Plain(),
    "redis-py's base class, async": Async(),
}


@pytest.mark.parametrize("kind", PROVIDERS)
async def test_every_kind_of_provider(user: Client, kind: str) -> None:
    assert await whoami(client_of(user, PROVIDERS[kind])) == "app"


async def test_a_password_alone_goes_with_the_settings_user(user: Client) -> None:
    assert await whoami(client_of(user, lambda: CANARY, username="app")) == "app"
    assert await whoami(client_of(user, lambda: (CANARY,), username="app")) == "app"


async def test_a_plain_provider_does_not_block_the_loop(user: Client) -> None:
    provider = Plain()
    assert await whoami(client_of(user, provider)) == "app"
    assert provider.thread != threading.get_ident()


@pytest.mark.parametrize(
    "answer", [None, 5, b"bytes", ("a", "b", CANARY), ["app", CANARY], (None, CANARY), ()]
)
async def test_nonsense_is_named_by_its_type(user: Client, answer: Any) -> None:
    async with client_of(user, lambda: answer, name="orders") as client:
        with pytest.raises(errors.AuthenticationError, match=type(answer).__name__) as caught:
            await client.get("k")
        assert "'orders'" in str(caught.value)
        assert CANARY not in repr(caught.value)


@pytest.mark.parametrize(
    "error", [ValueError(CANARY), TimeoutError(CANARY), StopIteration(CANARY), OSError(CANARY)]
)
async def test_a_provider_that_fails(user: Client, error: Exception) -> None:
    def failing() -> str:
        raise error

    async with client_of(user, failing) as client:
        with pytest.raises(
            errors.AuthenticationError, match="provider of connection 'redis' failed"
        ) as caught:
            await client.get("k")
        assert CANARY not in repr(caught.value)


def hung() -> str:
    time.sleep(3600)
    return CANARY


async def hung_async() -> str:
    await asyncio.sleep(3600)
    return CANARY


@pytest.mark.parametrize("provider", [hung, hung_async])
async def test_a_provider_that_hangs_has_the_deadline_of_connecting(user: Client, provider: Any) -> None:
    async with client_of(user, provider, timeouts={"connect": 0.1}, retry=Retry(attempts=0)) as client:
        for call in (client.get("k"), client.reauthenticate()):
            with pytest.raises(errors.ConnectTimeoutError, match=r"credential provider .* did not answer"):
                await call


def test_a_provider_that_hangs_does_not_keep_the_program() -> None:
    code = """
        import asyncio, time
        from gravito import errors
        from gravito.atlas import Client
        async def main():
            client = Client.from_url("unix:///nowhere", credential_provider=lambda: time.sleep(3600),
                                     timeouts={"connect": 0.1}, retry={"attempts": 0})
            try:
                await client.get("k")
            except errors.ConnectTimeoutError:
                print("late")
        asyncio.run(main())
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=20, check=True
    )
    assert done.stdout == "late\n"


async def test_the_provider_is_asked_at_every_connect(user: Client) -> None:
    asked = 0

    def provider() -> tuple[str, str]:
        nonlocal asked
        asked += 1
        return "app", CANARY

    async with client_of(user, provider) as client:
        await client.get("k")
        assert asked == 1
        await user.client_kill_filter(user="app")
        assert await client.get("k") is None
        await client.blpop("nothing", 0.01)
        assert asked == 3


# -- while connected ------------------------------------------------------------------------------------------


async def test_a_rotation_without_a_failed_command(user: Client) -> None:
    """The password is changed, the provider knows, and the server drops those with the old one."""
    current = [CANARY]
    async with client_of(user, lambda: ("app", current[0]), retry=Retry(base=0.001)) as client:
        assert await client.get("k") is None
        await user.execute("ACL", "SETUSER", "app", "resetpass", ">new")
        current[0] = "new"
        await client.reauthenticate()
        assert await client.acl_whoami() == "app"
        await user.client_kill_filter(user="app")
        results = await asyncio.gather(
            *[client.get("k") for _ in range(50)], client.pipeline().get("k").get("k")
        )
        assert results == [None] * 50 + [[None, None]]


async def test_reauthenticate_that_is_refused_leaves_the_wire_as_it_was(user: Client) -> None:
    current = [CANARY]
    async with client_of(user, lambda: ("app", current[0])) as client:
        me = await client.client_id()
        current[0] = f"wrong {CANARY}"
        with pytest.raises(errors.AuthenticationError) as caught:
            await client.reauthenticate()
        assert CANARY not in repr(caught.value)
        assert await client.client_id() == me
        assert client.stats().retries == 0


async def test_a_deleted_user_s_reads_fail_as_refused_credentials(user: Client) -> None:
    asked = 0

    def provider() -> tuple[str, str]:
        nonlocal asked
        asked += 1
        return "app", CANARY

    async with client_of(user, provider) as client:
        await client.get("k")
        await user.acl_deluser("app")
        with pytest.raises(errors.AuthenticationError, match="refused the credentials") as caught:
            await client.get("k")
        assert asked == 2  # WRONGPASS is not tried again
        assert CANARY not in repr(caught.value)


async def test_a_default_user_that_needs_a_password_from_now_on() -> None:
    with Engine() as engine:
        admin = Client.from_url(f"unix://{engine.ensure()}")
        password: list[str] = []

        def provider() -> Any:
            return ("default", password[0]) if password else ("default", "any")

        async with admin, Client.from_url(admin.settings.url, credential_provider=provider) as client:
            assert await client.set("k", "v") is True
            password.append(CANARY)
            await admin.config_set("requirepass", CANARY)
            assert await client.get("k") == "v"
            await admin.client_kill_filter(skipme=True)
            assert await client.get("k") == "v"


class Guard:
    """A server that forgets whom it let in: NOAUTH until the connection's HELLO names the newest password."""

    def __init__(self) -> None:
        self.password = "first"
        self.peer = ScriptedPeer(self.answer, handshake=False)
        self.hellos: list[str] = []
        self.inside = False

    def answer(self, command: list[bytes]) -> Any:
        name = command[0].upper()
        if name == b"HELLO":
            given = command[4].decode()
            self.hellos.append(given)
            self.inside = given == self.password
            return {"proto": 3} if self.inside else errors.ResponseError("WRONGPASS no")
        if name == b"CLIENT":
            return Simple("OK")
        if not self.inside:
            return errors.ResponseError("NOAUTH Authentication required.")
        if name == b"EXEC":
            return [1, 2]
        return 1

    def rotate(self) -> None:
        self.password, self.inside = "second", False


@pytest.fixture
async def guard() -> AsyncIterator[Guard]:
    guard = Guard()
    async with guard.peer:
        yield guard


@pytest.fixture
async def guarded(guard: Guard) -> AsyncIterator[Client]:
    options: Any = {"health_check": 0, "timeouts": {"drain": 0.1}, "retry": Retry(attempts=0)}
    async with Client.from_url(
        guard.peer.url, credential_provider=lambda: guard.password, **options
    ) as client:
        yield client


@pytest.mark.parametrize("how", ["plain", "many", "pipeline", "transaction", "blocking"])
async def test_noauth_asks_for_the_credentials_and_fails_nobody(
    guard: Guard, guarded: Client, how: str
) -> None:
    calls = {
        "plain": lambda: guarded.incr("n"),
        "many": lambda: asyncio.gather(*[guarded.incr("n") for _ in range(100)]),
        "pipeline": lambda: guarded.pipeline(transaction=False).incr("n").incr("n").execute(),
        "transaction": lambda: guarded.pipeline().incr("n").incr("n").execute(),
        "blocking": lambda: guarded.execute("WAIT", 0, 0),
    }
    expected = {"plain": 1, "many": [1] * 100, "pipeline": [1, 1], "transaction": [1, 2], "blocking": 1}[how]
    assert await calls[how]() == expected
    guard.rotate()
    assert await calls[how]() == expected
    assert guard.hellos == ["first", "second"]
    assert guarded.stats().errors == 0


async def test_noauth_in_several_reads_replaces_the_wire_once(guard: Guard, guarded: Client) -> None:
    """The refusals arrive piece by piece, while the new wire is made and after it is there."""
    assert await guarded.incr("n") == 1
    guard.rotate()
    guard.peer.pieces = 7
    assert await asyncio.gather(*[guarded.incr("n") for _ in range(200)]) == [1] * 200
    assert guard.hellos == ["first", "second"]


async def test_a_refusal_that_comes_late_does_not_replace_the_new_wire(guard: Guard, guarded: Client) -> None:
    plain = guard.answer
    again = asyncio.Event()

    async def answer(command: list[bytes]) -> Any:
        if command[-1] == b"late" and not again.is_set():  # until the new wire has answered somebody
            await again.wait()
            return errors.ResponseError("NOAUTH Authentication required.")
        return plain(command)

    guard.peer._answer = answer
    assert await guarded.incr("n") == 1
    guard.rotate()
    first, late = guarded.incr("n"), guarded.incr("late")
    late.packed = late.packed.replace(b"$1\r\n1\r\n", b"$4\r\nlate\r\n")  # INCRBY's amount comes last
    assert await first == 1
    again.set()
    assert await late == 1
    assert guard.hellos == ["first", "second"]


async def test_a_new_wire_is_new_and_not_an_idle_one_with_the_old_credentials(
    guard: Guard, guarded: Client
) -> None:
    assert await guarded.execute("WAIT", 0, 0) == 1  # leaves an idle wire
    assert await guarded.incr("n") == 1
    hellos = len(guard.hellos)
    guard.rotate()
    assert await guarded.incr("n") == 1
    assert guard.hellos[hellos:] == ["second"]


async def test_noauth_again_is_the_caller_s(guard: Guard) -> None:
    """The provider does not know the new password: two tries, no loop."""
    options: Any = {"health_check": 0, "timeouts": {"drain": 0.1}}
    async with Client.from_url(guard.peer.url, credential_provider=lambda: "first", **options) as client:
        assert await client.incr("n") == 1
        guard.rotate()
        with pytest.raises(errors.AuthenticationError):
            await client.incr("n")
        assert guard.hellos == ["first", "first"]
