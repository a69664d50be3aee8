"""Forks, loops that are closed too early, clients that nobody closes: an error or a warning, never a hang.

Each case is a program of its own: a fork of the tests' process would take pytest with it.
"""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import textwrap
import warnings
from typing import Any

import pytest

from gravito.atlas import Client
from gravito.testing import SILENCE, ScriptedPeer

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")

HEAD = """
import asyncio, gc, multiprocessing, os, signal, sys, warnings
warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)  # Python 3.12
from gravito import errors
from gravito.atlas import Client

URL = sys.argv[1]
client = Client.from_url(URL, timeouts={"command": 3, "connect": 3, "drain": 1})

def in_a_child(work):
    '''Run in a forked child; its exit status, with what it says on stdout. SIGALRM ends one that hangs.'''
    sys.stdout.flush()
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    signal.alarm(10)
    try:
        work()
        sys.stdout.flush()
        code = 0
    except BaseException as error:
        print(type(error).__name__, error, flush=True)
        code = 1
    os._exit(code)
"""


def run(redis: Client, code: str, *arguments: str) -> tuple[list[str], str]:
    """The lines that a program prints, and what it says on stderr; it has to end well and soon."""
    program = HEAD + textwrap.dedent(code)
    done = subprocess.run(
        [sys.executable, *arguments, "-c", program, redis.settings.url],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines(), done.stderr


def test_a_child_connects_for_itself_and_the_parent_goes_on(redis: Client) -> None:
    code = """
    async def main():
        await client.set("k", "v")
        waiting = asyncio.ensure_future(client.blpop("queue", 0))
        subscription = await client.subscribe("news")
        await asyncio.sleep(0.05)
        before = await client.client_id()
        me = await client.client_list()

        def work():
            print(client.stats().commands, client.stats().connections)
            print(asyncio.run(child()))

        async def child():
            async with client:
                return await client.get("k"), await client.client_id() != before

        print(in_a_child(work))
        print(await client.client_id() == before)
        await client.rpush("queue", "job")
        print(await waiting)
        await client.publish("news", "x")
        print((await subscription.get(timeout=5)).data)
        print(client.stats().disconnects)
    asyncio.run(main())
    """
    lines, _ = run(redis, code)
    assert lines == ["0 0", "('v', True)", "0", "True", "('queue', 'job')", "x", "0"]


def test_a_fork_outside_of_a_loop(redis: Client) -> None:
    code = """
    loop = asyncio.new_event_loop()
    async def once():
        return await client.incr("n")
    print(loop.run_until_complete(once()))
    print(in_a_child(lambda: print(asyncio.run(once()))))
    print(loop.run_until_complete(once()))
    loop.run_until_complete(client.aclose())
    loop.close()
    """
    lines, _ = run(redis, code)
    assert lines == ["1", "2", "0", "3"]


@pytest.mark.parametrize("loops", ["asyncio", "uvloop"])
def test_a_child_that_leaves_by_the_front_door_does_not_disturb_the_parent(redis: Client, loops: str) -> None:
    """It unwinds the parent's frames, asyncio.run's own end among them, and runs every finalizer."""
    if loops == "uvloop":
        pytest.importorskip("uvloop")
    code = f"""
    import {loops}
    async def main():
        await client.set("k", "v")
        await client.blpop("nothing", 0.01)
        await client.subscribe("news", print)
        before = await client.client_id()
        child = os.fork()
        if not child:
            signal.alarm(10)
            raise SystemExit(3)
        ended = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(ended[1]))
        print(await client.client_id() == before, await client.get("k"), client.stats().disconnects)
    {loops}.run(main())
    """
    lines, _ = run(redis, code)
    assert lines == ["3", "True v 0"]


def test_what_is_the_parent_s_is_refused_in_the_child(redis: Client) -> None:
    code = """
    async def main():
        session = client.client()
        await session.set("k", "v")
        pipe = client.pipeline()
        await pipe.watch("k")
        subscription = await client.subscribe("news")

        def work():
            try:
                client.get("k")
            except errors.LoopError as error:
                print("after a fork" in str(error))
            asyncio.run(child())

        async def child():
            for call in (session.get("k"), pipe.get("k")):
                try:
                    print(await call)
                except (errors.LoopError, errors.ConnectionLostError) as error:
                    print("before a fork" in str(error))
            print(await subscription.get(timeout=5), [message async for message in subscription])
            await client.aclose()

        print(in_a_child(work))
        print(await session.get("k"), await pipe.get("k"))
        await client.publish("news", "x")
        print((await subscription.get(timeout=5)).data)
    asyncio.run(main())
    """
    lines, _ = run(redis, code)
    assert lines == ["True", "True", "True", "None []", "0", "v v", "x"]


def test_multiprocessing(redis: Client) -> None:
    code = """
    def work(number):
        return asyncio.run(add(number))

    async def add(number):
        return await client.incrby("n", number)

    async def main():
        await client.set("n", 0)
        before = await client.client_id()
        with multiprocessing.get_context("fork").Pool(2) as pool:
            await asyncio.to_thread(pool.map, work, [1, 2, 3, 4])
        print(await client.get("n"), await client.client_id() == before)
    asyncio.run(main())
    """
    lines, _ = run(redis, code)
    assert lines == ["10 True"]


def test_an_embedded_engine_outlives_a_child(redis: Client) -> None:
    code = """
    own = Client.from_url("embedded://")
    async def add():
        async with own:
            print(await own.incr("n"), flush=True)
    asyncio.run(add())
    print(in_a_child(lambda: asyncio.run(add())), flush=True)
    child = os.fork()
    if not child:
        signal.alarm(10)
        asyncio.run(add())
        sys.exit(0)  # with all that is done at a program's end
    os.waitpid(child, 0)
    asyncio.run(add())
    """
    lines, _ = run(redis, code)
    assert lines == ["1", "2", "0", "3", "4"]


# -- loops and ends -------------------------------------------------------------------------------------------


def abandoned(url: str, **options: Any) -> tuple[Client, asyncio.AbstractEventLoop]:
    """A client with a command in flight in a loop that was closed under it."""
    client = Client.from_url(url, name="orders", password="canary", **options)
    loop = asyncio.new_event_loop()

    async def start() -> None:
        client.get("secret key")
        while not client.stats().in_flight:  # noqa: ASYNC110  # the peer never answers
            await asyncio.sleep(0)

    loop.run_until_complete(start())
    return client, loop


@pytest.fixture
def quiet(recwarn: pytest.WarningsRecorder) -> Any:
    """Transports warn of themselves, too; what they say is asyncio's."""
    warnings.simplefilter("always")
    yield recwarn
    gc.collect()


def ours(recorded: Any) -> list[str]:
    return [str(found.message) for found in recorded if "connection 'orders'" in str(found.message)]


@pytest.mark.parametrize("how", ["the next loop", "dropped", "closed"])
def test_a_loop_that_was_closed_with_work_in_flight(quiet: Any, how: str) -> None:
    async def main() -> tuple[Client, asyncio.AbstractEventLoop]:
        async with ScriptedPeer(lambda command: SILENCE) as peer:
            made = await asyncio.to_thread(abandoned, peer.url)
            made[1].close()
            assert ours(quiet) == []
            if how == "the next loop":
                made[0].get("k").close()
                await made[0].aclose()
            elif how == "closed":
                await made[0].aclose()
            return made

    client, _ = asyncio.run(main())
    del client
    gc.collect()
    (message,) = ours(quiet)
    assert "the event loop was closed while" in message
    assert "1 commands in flight" in message
    assert "canary" not in message
    assert "secret key" not in message


def test_a_client_that_nobody_closes(quiet: Any) -> None:
    async def main() -> None:
        async with ScriptedPeer(lambda command: "value") as peer:
            client = Client.from_url(peer.url, name="orders")
            await client.get("k")
            del client
            gc.collect()

    asyncio.run(main())
    (message,) = ours(quiet)
    assert message.startswith("unclosed client of connection 'orders'")


def test_a_loop_that_ends_in_order_needs_no_closing(redis: Client) -> None:
    code = """
    async def main():
        await client.set("k", "v")
        await client.blpop("nothing", 0.01)
        await client.subscribe("news", print)
        asyncio.ensure_future(client.blpop("queue", 0))
        await asyncio.sleep(0)
    asyncio.run(main())
    asyncio.run(main())
    """
    assert run(redis, code, "-W", "error") == ([], "")


def test_the_interpreter_ends_with_an_open_client(redis: Client) -> None:
    code = """
    loop = asyncio.new_event_loop()
    async def start():
        await client.set("k", "v")
        client.blpop("queue", 0)
        await client.subscribe("news", print)
    loop.run_until_complete(start())
    print("end")
    """
    lines, said = run(redis, code, "-W", "always")
    assert lines == ["end"]
    assert "ResourceWarning: unclosed client of connection 'redis'" in said


def test_an_exit_in_the_middle_of_everything(redis: Client) -> None:
    code = """
    async def main():
        await client.set("k", "v")
        client.blpop("queue", 0)
        await client.subscribe("news", print)
        client.get("k")
        sys.exit(0)
    asyncio.run(main())
    """
    lines, said = run(redis, code, "-W", "always")
    assert lines == []
    assert "Traceback" not in said
