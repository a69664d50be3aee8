"""Properties: replies match their commands whatever happens around them; encoding and retry arithmetic hold."""

from __future__ import annotations

import asyncio
import contextlib
import random
from typing import Any

import hiredis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gravito import errors
from gravito.atlas.client import Client
from gravito.atlas.config import Retry, Settings
from gravito.atlas.embedded import Engine
from gravito.atlas.wire import resp, retry
from gravito.atlas.wire.entry import Entry, Spec
from gravito.testing import Simple, Verbatim, reply

Redis = Any

KEYS = 500
GAVE_UP = (asyncio.CancelledError, TimeoutError, errors.TimeoutError)


def value_of(key: int, text: bool) -> Any:
    """What key n holds: everything that is read can be checked against its key."""
    value = f"value of {key} " * (key % 7 + 1)
    return value if text else value.encode()


class Caller:
    """One task that draws its operations and checks every reply."""

    def __init__(self, redis: Redis, seed: int) -> None:
        self.draw = random.Random(seed)
        self.text = self.draw.random() < 0.7
        self.redis = redis.with_options(decode_responses=self.text)
        self.script = self.redis.script("return {KEYS[1], redis.call('get', KEYS[1])}")
        self.checked = 0  # replies compared
        self.given_up = 0  # operations cancelled or timed out

    def expect(self, got: Any, meant: Any) -> None:
        assert got == meant, f"{got!r} came for {meant!r}"
        self.checked += 1

    def key(self) -> int:
        return self.draw.randrange(KEYS)

    def word(self, word: str) -> Any:
        return word if self.text else word.encode()

    async def run(self, operations: int) -> None:
        kinds = (
            [self.reads] * 6
            + [self.pipeline] * 3
            + [self.transaction, self.lua, self.echo, self.error, self.large]
        )
        while self.checked < operations:
            kind = self.draw.choice(kinds)
            if self.draw.random() < 0.1:
                await self.abandon(kind)
            else:
                await kind()

    async def abandon(self, kind: Any) -> None:
        """Start an operation and give it up at some moment, by cancelling it or by a deadline."""
        self.given_up += 1
        if self.draw.random() < 0.5:
            with contextlib.suppress(*GAVE_UP):
                await asyncio.wait_for(kind(), self.draw.random() * 0.003)
            return
        task = asyncio.create_task(kind())
        for _ in range(self.draw.randrange(5)):
            await asyncio.sleep(0)
        task.cancel()
        with contextlib.suppress(*GAVE_UP):
            await task

    async def reads(self) -> None:
        keys = [self.key() for _ in range(self.draw.randrange(1, 20))]
        calls = [self.redis.get(f"k{key}") for key in keys]
        for key, got in zip(keys, await asyncio.gather(*calls), strict=True):
            self.expect(got, value_of(key, self.text))

    async def pipeline(self, atomic: bool = False) -> None:
        keys = [self.key() for _ in range(self.draw.randrange(1, 30))]
        pipe = self.redis.pipeline(atomic)
        for key in keys:
            pipe.get(f"k{key}").echo(str(key))
        got = await pipe.exec()
        meant = [part for key in keys for part in (value_of(key, self.text), self.word(str(key)))]
        self.expect(got, meant)
        self.checked += len(meant) - 1

    async def transaction(self) -> None:
        await self.pipeline(atomic=True)

    async def lua(self) -> None:
        key = self.key()
        self.expect(await self.script([f"k{key}"]), [self.word(f"k{key}"), value_of(key, self.text)])

    async def echo(self) -> None:
        word = self.draw.choice(["", "|", "\r\n|1\r\n", "+OK\r\n", "k\u00fche"]) * self.draw.randrange(50)
        self.expect(await self.redis.echo(word), self.word(word))

    async def error(self) -> None:
        word = f"of-{self.draw.random()}"
        with pytest.raises(errors.ResponseError, match=word):
            await self.redis.execute("NO.SUCH.COMMAND", word)
        self.checked += 1

    async def large(self) -> None:
        """On a leased wire, beside the shared one."""
        key = self.key()
        self.expect(await self.redis.execute("MGET", f"k{key}", "x" * 5000), [value_of(key, self.text), None])


async def prepared(engine: Engine, **options: Any) -> Client:
    client = Client.from_url(
        f"unix://{engine.path}", limits={"lease_over": 4000, "in_flight": 300}, **options
    )
    pipe = client.pipeline(False)
    for key in range(KEYS):
        pipe.set(f"k{key}", value_of(key, True))
    await pipe.exec()
    return client


@pytest.mark.parametrize("protocol", [2, 3])
async def test_replies_match_their_commands(gravito_engine: Engine, redis: Redis, protocol: int) -> None:
    async with await prepared(gravito_engine, protocol=protocol) as client:
        callers = [Caller(client, seed) for seed in range(40)]
        await asyncio.gather(*[caller.run(1500) for caller in callers])
        pool = client._state().topology.pool
        await asyncio.sleep(0.01)
        assert pool.lent == 0
    assert sum(caller.checked for caller in callers) >= 50_000  # for each protocol
    assert sum(caller.given_up for caller in callers) > 200


async def test_they_match_also_when_connections_are_lost(gravito_engine: Engine, redis: Redis) -> None:
    """Reads go on by themselves; nothing else may fail in another way than by saying that it was lost."""
    async with await prepared(gravito_engine, retry={"attempts": 50, "base": 0.001}) as client:
        callers = [Caller(client, seed) for seed in range(10)]

        async def run(caller: Caller) -> None:
            for _ in range(20):
                with contextlib.suppress(errors.ConnectionError):
                    await caller.run(caller.checked + 100)

        running = asyncio.gather(*[run(caller) for caller in callers])
        kills = 0
        while not running.done():
            await asyncio.sleep(0.02)
            with contextlib.suppress(errors.ConnectionError):
                kills += await redis.client_kill_filter(_type="normal", skipme=True)
        await running
    assert kills > 3
    assert sum(caller.checked for caller in callers) > 1000


# -- encoding --------------------------------------------------------------------------------------------------

WORDS = st.one_of(
    st.binary(), st.text(st.characters(exclude_categories=["Cs"])), st.integers(), st.floats(allow_nan=False)
)


@given(st.lists(WORDS, min_size=1))
def test_commands_are_what_hiredis_reads(words: list[Any]) -> None:
    reader = hiredis.Reader()
    reader.feed(resp.encode(words))
    meant = [
        word
        if isinstance(word, bytes)
        else str(word).encode()
        if not isinstance(word, float)
        else repr(word).encode()
        for word in words
    ]
    assert reader.gets() == meant
    assert reader.gets() is False


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.binary(),
    st.text(st.characters(exclude_categories=["Cs"])),
    st.floats(allow_nan=False),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4),
    max_leaves=15,
)


def as_bytes(value: Any) -> Any:
    """What a reader that decodes nothing makes of a value."""
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, list):
        return [as_bytes(part) for part in value]
    if isinstance(value, dict):
        return {as_bytes(key): as_bytes(part) for key, part in value.items()}
    return value


@given(st.lists(VALUES, min_size=1, max_size=5), st.data())
def test_replies_are_what_was_said_however_they_are_cut(values: list[Any], data: st.DataObject) -> None:
    stream = b"".join(reply(value) for value in values)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=5)))
    reader = resp.new_reader()
    got = []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        reader.feed(stream[start:end])
        while (value := reader.gets(False)) is not resp.INCOMPLETE:
            got.append(value)
    assert got == as_bytes(values)


def test_the_peers_own_types() -> None:
    assert reply(Simple("OK")) == b"+OK\r\n"
    assert reply(Verbatim("x")) == b"=5\r\ntxt:x\r\n"
    assert reply(ValueError("ERR x")) == b"-ERR x\r\n"
    with pytest.raises(TypeError):
        reply(object())


# -- trying again ----------------------------------------------------------------------------------------------


@given(st.integers(1, 10_000), st.floats(0, 1, exclude_max=True), st.floats(0.001, 1), st.floats(1, 100))
def test_pauses_stay_within_the_policy(attempt: int, drawn: float, base: float, cap: float) -> None:
    policy = Retry(base=base, cap=cap)
    pause = retry.delay(policy, attempt, lambda: drawn)
    assert 0 <= pause <= cap
    assert pause <= base * 2.0 ** min(attempt - 1, 1000)
    assert retry.delay(policy, attempt + 1, lambda: drawn) >= pause


@given(st.integers(1, 10), st.integers(0, 5), st.booleans())
def test_only_reads_are_sent_again_and_not_for_ever(attempt: int, attempts: int, reads: bool) -> None:
    settings = Settings(retry=Retry(attempts=attempts))
    spec = Spec.of("GET", resp_flags(reads))
    loop = asyncio.new_event_loop()
    entry = Entry(loop.create_future(), b"", spec, None, True, attempt=attempt)
    loop.close()
    assert retry.may_resend(entry, settings) is (reads and attempt <= attempts)


def resp_flags(reads: bool) -> Any:
    from gravito.atlas.wire.commands import Route

    return Route.READ_ONLY if reads else Route(0)


def test_a_refused_command_is_tried_until_its_deadline() -> None:
    loop = asyncio.new_event_loop()
    entry = Entry(loop.create_future(), b"", Spec.of("SET"), None, True)
    loop.close()
    settings = Settings()
    now, tries = 100.0, 0
    while (
        pause := retry.pause_after(entry, errors.LoadingError("x"), settings, now, lambda: 0.5)
    ) is not None:
        now, tries = now + pause, tries + 1
    assert 104.5 < now <= 105.0
    assert tries == entry.attempt - 1 > 5
    assert retry.pause_after(entry, errors.AuthenticationError("x"), settings, 0.0) is None
    never = Settings(retry=Retry(attempts=0))
    assert retry.pause_after(entry, errors.LoadingError("x"), never, 0.0) is None
