"""`cache.sync`: the cache for code without an event loop, in threads, forks and at the end of a process."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from types import FrameType
from typing import Any

import pytest

from gravito import errors
from gravito.atlas import Client
from gravito.stasis import Cache, SyncCache
from gravito.stasis._portal import Portal, portal


@pytest.fixture
def cache(redis: Client) -> Iterator[Cache]:
    made = Cache(connection=Client.from_url(redis.settings.url))
    yield made
    made.sync.close()
    client = made._connection
    assert isinstance(client, Client)
    portal.call(client.aclose)
    portal.close()


@pytest.fixture
def sync(cache: Cache) -> SyncCache:
    return cache.sync


class TestMethods:
    def test_values(self, sync: SyncCache) -> None:
        assert sync.put("a", {"x": 1}, 60) is True
        assert sync.get("a") == {"x": 1}
        assert sync.get("b", "nothing") == "nothing"
        assert sync.put_many({"b": 2, "c": 3}, ttl=60) is True
        assert sync.many(["a", "b", "d"]) == {"a": {"x": 1}, "b": 2, "d": None}
        assert (sync.has("a"), sync.missing("a")) == (True, False)
        assert (sync.add("a", 1), sync.pull("b"), sync.touch("b")) == (False, 2, False)
        assert (sync.increment("n", 5), sync.decrement("n")) == (5, 4)
        assert (sync.forget("a"), sync.forget_many(["a", "c"])) == (True, 1)
        assert sync.forever("e", 1) is True
        sync.clear()
        assert sync.get("e") is None
        assert sync.stats().writes > 0

    def test_a_limiter(self, sync: SyncCache) -> None:
        logins = sync.limiter("login:{ip}", limit=2, per=60)
        assert logins.check(ip=1).remaining == 2
        assert [logins.attempt(ip=1).allowed, bool(logins.wait(0, ip=1)), logins.attempt(ip=1).allowed] == [
            *(True, True, False)
        ]
        with pytest.raises(errors.LimitExceededError):
            logins.hit(ip=1)
        assert logins.attempt(ip=2)
        assert logins.reset(ip=1) is True
        assert logins.hit(ip=1).remaining == 1
        assert repr(logins) == "<SyncLimiter of <Limiter 'login:{ip}' 2 in 60 s, fixed>>"

    def test_tags_and_namespaces(self, sync: SyncCache) -> None:
        reports = sync.namespace("reports")
        assert reports.tags("t").remember("k", 60, lambda: 1) == 1
        assert sync.get("k") is None
        reports.tags("t").flush()
        assert reports.get("k") is None

    def test_locks(self, sync: SyncCache) -> None:
        with sync.lock("a", wait=None) as lease:
            with pytest.raises(errors.LockTimeoutError), sync.lock("a", wait=0.01):
                pass
            first = lease.fence
        with pytest.raises(KeyError), sync.lock("a"):
            raise KeyError
        with sync.lock("a") as lease:
            assert lease.fence > first

    def test_errors_are_the_same(self, sync: SyncCache) -> None:
        with pytest.raises(errors.InvalidKeyError, match="the key is empty"):
            sync.get("")
        with pytest.raises(errors.ConfigurationError, match="the factory is None"):
            sync.remember("k", 60)


class TestFactories:
    def test_a_plain_one_runs_in_the_callers_thread(self, sync: SyncCache) -> None:
        assert sync.remember("k", 60, threading.get_ident) == threading.get_ident()
        assert sync.flexible("f", 60, 60, threading.get_ident) == threading.get_ident()
        assert sync.remember_forever("e", threading.get_ident) == threading.get_ident()

    def test_an_asynchronous_one_in_the_loop(self, sync: SyncCache) -> None:
        async def where() -> str:
            return threading.current_thread().name

        assert sync.remember("k", 60, where) == "gravito cache portal"

    def test_it_may_use_the_cache(self, sync: SyncCache) -> None:
        def outer() -> int:
            inner: int = sync.remember("inner", 60, lambda: 1)
            return inner + 1

        assert sync.remember("outer", 60, outer) == 2

    def test_one_that_asks_for_itself_is_told(self, sync: SyncCache) -> None:
        def again() -> None:
            sync.remember("k", 60, again)

        with pytest.raises(errors.CacheError, match="waits for its own value"):
            sync.remember("k", 60, again)

    def test_one_run_for_all_threads(self, sync: SyncCache) -> None:
        runs = []
        together = threading.Barrier(8)

        def factory() -> int:
            runs.append(1)
            return len(runs)

        def one(_: int) -> int:
            together.wait(10)
            value: int = sync.remember("k", 60, factory)
            return value

        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(one, range(8))) == [1] * 8
        assert runs == [1]

    def test_its_error_is_the_callers(self, sync: SyncCache) -> None:
        def fails() -> None:
            raise ValueError("no")

        with pytest.raises(ValueError, match="no"):
            sync.remember("k", 60, fails)
        assert sync.remember("k", 60, lambda: 1) == 1

    def test_an_interrupt_leaves_nothing_behind(self, sync: SyncCache) -> None:
        def interrupted() -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            sync.remember("k", 60, interrupted)
        assert sync.remember("k", 60, lambda: 1) == 1

    def test_a_refresh_goes_on_without_its_caller(self, sync: SyncCache) -> None:
        seen: list[str] = []
        ran = threading.Event()

        def factory() -> int:
            seen.append(threading.current_thread().name)
            if len(seen) == 2:
                ran.set()
            return len(seen)

        assert sync.flexible("f", 0.01, 60, factory) == 1
        while not ran.is_set():
            assert sync.flexible("f", 0.01, 60, factory) in (1, 2)
        assert seen[0] == threading.current_thread().name


class TestThreads:
    def test_the_portals_own_thread_would_wait_for_itself(self, sync: SyncCache) -> None:
        async def within() -> None:
            sync.get("k")

        with pytest.raises(errors.CacheError, match="would wait for itself"):
            portal.call(within)

    async def test_within_an_event_loop_it_blocks_and_works(self, sync: SyncCache) -> None:
        assert sync.put("k", 1) is True
        assert sync.get("k") == 1
        await asyncio.sleep(0)

    def test_closed_while_somebody_waits(self, sync: SyncCache) -> None:
        begun = threading.Event()

        async def for_ever() -> None:
            begun.set()
            await asyncio.Event().wait()

        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(portal.call, for_ever)
            assert begun.wait(10)
            portal.close()
            with pytest.raises(errors.CacheError, match="was closed"):
                waiting.result(10)

    def test_an_interrupt_cancels_what_is_waited_for(self, sync: SyncCache) -> None:
        ended, main = threading.Event(), threading.get_ident()

        async def work() -> None:
            try:
                await asyncio.sleep(0.1)  # until the thread waits
                signal.pthread_kill(main, signal.SIGINT)  # as Ctrl-C
                await asyncio.Event().wait()
            finally:
                ended.set()

        usual = signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job ignores it
        try:
            with pytest.raises(KeyboardInterrupt):
                portal.call(work)
        finally:
            signal.signal(signal.SIGINT, usual)
        assert ended.wait(10)

    def test_an_interrupt_before_the_thread_waits(self, sync: SyncCache) -> None:
        begun, ended = threading.Event(), threading.Event()

        async def work() -> None:
            begun.set()
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()

        def interrupt(frame: FrameType, event: str, _: object) -> Any:
            if frame.f_code is not Portal._send.__code__:
                return None
            if event == "return":  # the loop has it, and the call does not wait yet
                assert begun.wait(10)
                raise KeyboardInterrupt
            return interrupt

        usual = sys.gettrace()
        sys.settrace(interrupt)
        try:
            with pytest.raises(KeyboardInterrupt):
                portal.call(work)
        finally:
            sys.settrace(usual)
        assert ended.wait(10)

    def test_close_and_again(self, sync: SyncCache, cache: Cache) -> None:
        sync.put("k", 1)
        portal.close()
        assert [each.name for each in threading.enumerate() if each.name == "gravito cache portal"] == []
        assert repr(portal) == "<Portal closed>"
        assert sync.get("k") == 1
        assert repr(portal) == "<Portal open>"


PROGRAM = """
import os, sys, warnings
warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)  # Python 3.12
from gravito.atlas import Client
from gravito.stasis import Cache
sync = Cache(connection=Client.from_url(sys.argv[1])).sync
"""


def run(redis: Client, code: str) -> tuple[str, str]:
    """What a program prints to stdout and stderr; it has to end well and soon."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM + textwrap.dedent(code), redis.settings.url],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


class TestProcesses:
    def test_the_end_of_a_program_closes_it_without_a_word(self, redis: Client) -> None:
        assert run(redis, "print(sync.remember('k', 60, lambda: 7))") == ("7\n", "")

    def test_it_closes_before_an_engine_that_it_has_started(self, redis: Client) -> None:
        """Else the engine's end would be reported as a lost connection."""
        assert run(redis, "print(Cache(connection='redis').sync.put('k', 7))") == ("True\n", "")

    def test_a_forked_child_has_its_own(self, redis: Client) -> None:
        out, errors_ = run(
            redis,
            """
            sync.put("k", 1)
            child = os.fork()
            if not child:
                print(sync.get("k"), sync.put("k", 2), flush=True)
                sys.exit(0)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
            print(sync.get("k"))
            """,
        )
        assert (out, errors_) == ("1 True\n2\n", "")
