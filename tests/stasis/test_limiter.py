"""Limiters against a model in Python that is driven by the server's own time, and under many callers at once."""

from __future__ import annotations

import asyncio
import datetime as datetimes
import itertools
import json
import math
import os
import sys
import time
from collections.abc import Sequence
from datetime import timedelta
from fractions import Fraction
from typing import Any, NamedTuple

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.stasis.stores import info_of_each, url_of

from gravito import errors
from gravito.atlas import Client
from gravito.stasis._scripts import source
from gravito.stasis.limiter import Decision, Kind, Limiter, Rule, decide

KINDS: list[Kind] = ["fixed", "sliding", "bucket"]


@pytest.fixture
def url(redis: Client) -> str:
    return url_of(redis)


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    found: Kind = request.param
    return found


# -- models --------------------------------------------------------------------------------------------------


class Reply(NamedTuple):
    """A script's result."""

    allowed: int
    remaining: int
    retry: int  # us
    reset: int  # us
    now: int  # us


class Sliding:
    """Every call that was allowed, and when."""

    def __init__(self, rule: Rule) -> None:
        self.rule, self.per = rule, rule.per_ms * 1000
        self.grain = rule.args()[4]
        self.log: list[tuple[int, int]] = []

    def reply(self, now: int, cost: int, spend: bool) -> Reply:
        live = [(at, c) for at, c in self.log if at + self.per > now]
        used = sum(c for _, c in live)
        limit = self.rule.limit
        if used + cost > limit:
            ends = [at + self.per for at, _ in live]
            retry = next(e for e in ends if sum(c for at, c in live if at + self.per > e) + cost <= limit)
            return Reply(0, max(0, limit - used), retry - now, ends[-1] - now, now)
        if spend:
            used += cost
            live.append((max(-(-now // self.grain) * self.grain, *(at for at, _ in live), 0), cost))
            self.log = live
        return Reply(1, limit - used, 0, live[-1][0] + self.per - now if live else 0, now)


class Bucket:
    """What the bucket lacks, as an exact fraction of tokens."""

    def __init__(self, rule: Rule) -> None:
        self.rule, self.per = rule, rule.per_ms * 1000
        self.at, self.lacks = 0, Fraction(0)

    def reply(self, now: int, cost: int, spend: bool) -> Reply:
        rate = Fraction(self.rule.limit, self.per)
        lacks = max(Fraction(0), self.lacks - (now - self.at) * rate)
        over = lacks + cost - self.rule.burst
        if over <= 0 and spend:
            lacks += cost
            self.at, self.lacks = now, lacks
        remaining = max(0, math.floor(self.rule.burst - lacks))
        return Reply(int(over <= 0), remaining, max(0, math.ceil(over / rate)), math.ceil(lacks / rate), now)


class Fixed:
    """A window, by its end. The server's TTLs are whole ms, so for up to 2 ms it may or may not be over."""

    def __init__(self, rule: Rule) -> None:
        self.rule, self.per = rule, rule.per_ms * 1000
        self.end, self.used = 0, 0

    def possible(self, now: int, cost: int, got: Reply) -> bool:
        """Whether the answer is one that the window allows."""
        if now > self.end + 2000 or (now >= self.end and got.allowed and got.reset in (0, self.per)):
            self.used = 0
        if got.allowed != (self.used + cost <= self.rule.limit):
            return False
        left = self.end - now if self.used else 0
        return got.allowed == 1 or (left <= got.retry <= max(left, 0) + 2000 and got.retry == got.reset)

    def note(self, now: int, cost: int) -> int:
        """What remains once it has counted."""
        if not self.used:
            self.end = now + self.per
        self.used += cost
        return self.rule.limit - self.used


STEPS = st.lists(
    st.tuples(st.sampled_from([0, 0, 0, 1, 4, 15, 40]), st.integers(1, 4), st.booleans() | st.just(True)),
    min_size=5,
    max_size=20,
)


async def replies(
    redis: Client, rule: Rule, steps: Sequence[tuple[int, int, bool]]
) -> list[tuple[int, bool, Reply]]:
    """(cost, spend, reply) of each step, on a fresh key."""
    await redis.delete("cache:q:property")
    script = redis.script(source(rule.script), rule.script)
    found = []
    for pause_ms, cost, spend in steps:
        await asyncio.sleep(pause_ms / 1000)
        price = min(cost, rule.burst)
        found.append((price, spend, Reply(*await script(("cache:q:property",), rule.args(price, spend)))))
    return found


PROPERTY = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@PROPERTY
@given(limit=st.integers(1, 8), per=st.integers(5, 60), steps=STEPS)
async def test_sliding_is_the_model(redis: Client, limit: int, per: int, steps: Any) -> None:
    rule = Rule.of(limit, per / 1000, "sliding")
    model = Sliding(rule)
    for cost, spend, reply in await replies(redis, rule, steps):
        assert reply == model.reply(reply.now, cost, spend)


@PROPERTY
@given(per=st.integers(5, 60), steps=STEPS, scale=st.integers(30, 60))
async def test_sliding_in_grains_is_the_model(redis: Client, per: int, steps: Any, scale: int) -> None:
    rule = Rule.of(129, per / 1000, "sliding")
    model = Sliding(rule)
    steps = [(pause, cost * scale, spend) for pause, cost, spend in steps]
    for cost, spend, reply in await replies(redis, rule, steps):
        assert reply == model.reply(reply.now, min(cost, 129), spend)


@PROPERTY
@given(limit=st.integers(1, 9), per=st.integers(1, 60), burst=st.integers(1, 8), steps=STEPS)
async def test_a_bucket_is_the_model(redis: Client, limit: int, per: int, burst: int, steps: Any) -> None:
    rule = Rule.of(limit, per / 1000, "bucket", burst)
    model = Bucket(rule)
    for cost, spend, reply in await replies(redis, rule, steps):
        assert reply == model.reply(reply.now, cost, spend)


@pytest.mark.one_server(
    "a key that moves gets its time to live anew on arrival: the move makes the window longer"
)
@PROPERTY
@given(limit=st.integers(1, 8), per=st.integers(5, 60), steps=STEPS)
async def test_fixed_is_the_model(redis: Client, limit: int, per: int, steps: Any) -> None:
    rule = Rule.of(limit, per / 1000, "fixed")
    model = Fixed(rule)
    for cost, spend, reply in await replies(redis, rule, steps):
        assert model.possible(reply.now, cost, reply), (model.end, model.used, cost, reply)
        if reply.allowed and spend:
            assert reply.remaining == model.note(reply.now, cost)


# -- many callers --------------------------------------------------------------------------------------------


async def test_many_tasks_never_have_more(redis: Client, kind: Kind) -> None:
    limiter = Limiter(redis, "login:{ip}", limit=25, per=3600, kind=kind)
    decisions = await asyncio.gather(*[limiter.attempt(ip="::1") for _ in range(200)])
    assert sum(map(bool, decisions)) == 25
    assert sorted(d.remaining for d in decisions if d) == list(range(25))
    assert all(d.retry_after > 0 for d in decisions if not d)


CALLER = """
import asyncio, json, sys, time
time.time = lambda: float(sys.argv[2])
from gravito.atlas import Client
from gravito.stasis._scripts import source
from gravito.stasis.limiter import Rule

async def main():
    rule = Rule.of(10, 0.1, sys.argv[3])
    allowed = []
    async with Client.from_url(sys.argv[1]) as redis:
        script = redis.script(source(rule.script), rule.script)
        print("ready", flush=True)
        sys.stdin.readline()
        for _ in range(60):
            for reply in await asyncio.gather(*[script(["shared"], rule.args()) for _ in range(10)]):
                if reply[0]:
                    allowed.append(reply[4])
            await asyncio.sleep(0.01)
    print(json.dumps(allowed), flush=True)

asyncio.run(main())
"""


async def test_three_processes_never_have_more(url: str, redis: Client, kind: Kind) -> None:
    """Their clocks are decades apart."""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    pipe = asyncio.subprocess.PIPE
    processes = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-c", CALLER, url, clock, kind, stdin=pipe, stdout=pipe, env=env
        )
        for clock in ("0", "1000000000", "4000000000")
    ]
    try:
        for process in processes:
            assert process.stdout is not None
            assert await asyncio.wait_for(process.stdout.readline(), 20) == b"ready\n"
        outputs = await asyncio.gather(*[process.communicate(b"go\n") for process in processes])
    finally:
        for process in processes:
            if process.returncode is None:
                process.kill()
                await process.communicate()
    allowed = sorted(at for output, _ in outputs for at in json.loads(output))
    assert len(allowed) >= 30  # three windows at least
    assert not broken_promise(kind, allowed)


def broken_promise(kind: Kind, allowed: list[int]) -> list[int]:
    """Calls that were one too many, at 10 in 100 ms."""
    if kind == "sliding":
        return [b for a, b in zip(allowed, allowed[10:], strict=False) if b - a < 100_000]
    if kind == "bucket":
        pairs = itertools.combinations(enumerate(allowed), 2)
        return [b for (i, a), (j, b) in pairs if j - i + 1 > 10 + 10 * (b - a) / 100_000 + 1e-6]
    windows: list[list[int]] = []
    for at in allowed:
        if not windows or at - windows[-1][0] >= 100_000:
            windows.append([])
        windows[-1].append(at)
    return [window[10] for window in windows if len(window) > 10]


def test_a_broken_promise_is_found() -> None:
    close = [0] * 10 + [99_999]
    assert broken_promise("sliding", close) == [99_999]
    assert broken_promise("fixed", close) == [99_999]
    assert broken_promise("bucket", [0] * 11)
    assert not any(broken_promise(kind, [*range(10), 100_010]) for kind in KINDS)


async def test_clocks_of_applications_play_no_part(
    redis: Client, kind: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    limiter = Limiter(redis, "login", limit=2, per=60, kind=kind)
    assert await limiter.attempt()
    for clock in (0.0, time.time() + 3600, 4e9):
        monkeypatch.setattr(time, "time", lambda clock=clock: clock)
        monkeypatch.setattr(time, "time_ns", lambda clock=clock: int(clock * 1e9))
        last = await limiter.check()
        assert (last.allowed, last.remaining) == (True, 1)
    assert await limiter.attempt()
    assert not await limiter.attempt()


# -- what they say -------------------------------------------------------------------------------------------


async def test_decisions(redis: Client, kind: Kind) -> None:
    limiter = Limiter(redis, "login:{ip}", limit=3, per=60, kind=kind)
    first = await limiter.attempt(ip="a")
    assert (first.allowed, first.remaining, first.retry_after, first.limit) == (True, 2, 0.0, 3)
    assert 0 < first.reset_after <= 60
    second = await limiter.attempt(2, ip="a")
    assert (second.allowed, second.remaining) == (True, 0)
    refused = await limiter.attempt(ip="a")
    assert (bool(refused), refused.remaining) == (False, 0)
    assert 0 < refused.retry_after <= refused.reset_after <= 60.01
    assert (await limiter.attempt(ip="b")).remaining == 2


async def test_a_check_counts_nothing(redis: Client, kind: Kind) -> None:
    limiter = Limiter(redis, "login", limit=2, per=60, kind=kind)
    assert [await limiter.check() for _ in range(3)] == [Decision(True, 2, 0.0, 0.0, 2)] * 3
    assert await redis.keys("*") == []
    await limiter.attempt(2)
    assert not await limiter.check()


async def test_what_is_refused_counts_nothing(redis: Client, kind: Kind) -> None:
    limiter = Limiter(redis, "login", limit=5, per=3600, kind=kind)
    await limiter.attempt(3)
    for _ in range(10):
        assert not await limiter.attempt(3)
    assert (await limiter.attempt(2)).remaining == 0


async def test_reset(redis: Client, kind: Kind) -> None:
    limiter = Limiter(redis, "login:{ip}", limit=1, per=60, kind=kind)
    assert await limiter.attempt(ip="a")
    assert not await limiter.attempt(ip="a")
    assert await limiter.reset(ip="a") is True
    assert await limiter.reset(ip="a") is False
    assert await limiter.attempt(ip="a")


async def test_hit_or_raise(redis: Client, kind: Kind) -> None:
    limiter = Limiter(redis, "login:{ip}", limit=5, per=60, kind=kind)
    assert (await limiter.hit(4, ip="a")).remaining == 1
    with pytest.raises(
        errors.LimitExceededError, match=r"'login:\{ip\}' allows 5 in 60 s; try again"
    ) as caught:
        await limiter.hit(2, ip="a")
    assert 0 < caught.value.retry_after <= 60.01
    assert (caught.value.remaining, caught.value.limit) == (1, 5)


async def test_nothing_outlives_its_time(redis: Client, kind: Kind) -> None:
    limiter = Limiter(redis, "login", limit=2, per=0.5, kind=kind)
    await limiter.attempt()
    assert 0 < await redis.pttl(limiter.key()) <= 502
    async with asyncio.timeout(5):
        while await redis.keys("*"):  # noqa: ASYNC110  # the server sets no event
            await asyncio.sleep(0.01)


@pytest.mark.one_server("as above")
async def test_when_to_come_again(redis: Client, kind: Kind) -> None:
    limiter = Limiter(redis, "login", limit=2, per=0.1, kind=kind)
    await limiter.attempt(2)
    for _ in range(5):
        refused = await limiter.attempt(2)
        if refused:
            break
        await asyncio.sleep(refused.retry_after)
        assert await limiter.attempt(2)  # the server's clock, and sleep is never short


async def test_a_log_stays_short(redis: Client) -> None:
    limiter = Limiter(redis, "calls", limit=1_000_000, per=1.0, kind="sliding")
    for _ in range(40):
        await asyncio.gather(*[limiter.attempt() for _ in range(50)])
    assert await redis.llen(limiter.key()) <= 2 * 130 + 1
    assert (await limiter.check()).remaining >= 1_000_000 - 2000


async def test_a_bucket_of_numbers_too_large_for_a_double(redis: Client) -> None:
    """999,983 is prime, so a token is 86.4e9 units and the bucket more than 2**53 of them."""
    limiter = Limiter(redis, "calls", limit=999_983, per=86_400, kind="bucket")
    assert (await limiter.attempt(999_983 - 10)).remaining == 10
    decisions = await asyncio.gather(*[limiter.attempt() for _ in range(30)])
    assert 10 <= sum(map(bool, decisions)) < 30  # one flows in each 86 ms


async def test_a_server_s_clock_that_is_set_back_takes_nothing_from_a_bucket(redis: Client) -> None:
    limiter = Limiter(redis, "calls", limit=10, per=3600, kind="bucket")
    await limiter.attempt(4)
    at, *rest = (await redis.get(limiter.key())).split()
    await redis.set(limiter.key(), " ".join([str(int(at) + 3_600_000_000), *rest]))  # as if an hour later
    assert (await limiter.check()).remaining == 6
    assert (await limiter.attempt(6)).allowed


async def test_a_bucket_whose_rule_is_changed(redis: Client) -> None:
    assert (await Limiter(redis, "calls", limit=10, per=3600, kind="bucket").attempt(8)).remaining == 2
    changed = Limiter(redis, "calls", limit=7, per=3601, kind="bucket", burst=10)
    assert (await changed.check()).remaining == 2
    assert not await changed.attempt(3)


# -- waiting -------------------------------------------------------------------------------------------------


async def test_waiting_until_it_is_allowed(redis: Client, kind: Kind) -> None:
    limiter = Limiter(redis, "mail", limit=2, per=0.2, kind=kind)
    await limiter.attempt(2)
    await redis.config_resetstat()
    decisions = await asyncio.gather(*[limiter.wait(timeout=30) for _ in range(6)])
    assert all(decisions)
    stats = [each.get("cmdstat_evalsha") for each in await info_of_each(redis, "commandstats")]
    asked = [each["calls"] - each["rejected_calls"] - each["failed_calls"] for each in stats if each]
    assert sum(asked) <= 6 + 6 + 2  # each waiter's own, and a refusal before it


async def test_a_wait_that_would_be_in_vain(redis: Client, kind: Kind) -> None:
    limiter = Limiter(redis, "mail", limit=1, per=3600, kind=kind)
    assert await limiter.wait()
    refused = await asyncio.wait_for(limiter.wait(timeout=60), 5)
    assert not refused
    assert refused.retry_after > 60


async def test_behind_others_for_too_long(redis: Client, kind: Kind) -> None:
    limiter = Limiter(redis, "mail", limit=1, per=3600, kind=kind)
    await limiter.attempt()
    first = asyncio.create_task(limiter.wait())
    assert not await limiter.wait(timeout=0.05)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    await limiter.reset()
    assert await asyncio.wait_for(limiter.wait(), 5)


# -- without a cache, and nonsense ---------------------------------------------------------------------------


async def test_without_a_limiter(redis: Client, kind: Kind) -> None:
    rule = Rule.of(2, timedelta(minutes=1), kind)
    assert (await decide(redis, "queue:mail", rule, 2, spend=False)).remaining == 2
    assert (await decide(redis, "queue:mail", rule, 2)).remaining == 0
    assert not await decide(redis, "queue:mail", rule)
    assert set(await redis.keys("*")) == {"queue:mail"}


async def test_kinds_do_not_meet(redis: Client) -> None:
    for kind in KINDS:
        assert (await Limiter(redis, "login", limit=1, per=60, kind=kind).attempt()).allowed
    assert len(await redis.keys("cache:q:*")) == 3


@pytest.mark.parametrize("value", ["no number", "1 2", "-"])
async def test_a_key_that_holds_something_else(redis: Client, kind: Kind, value: str) -> None:
    limiter = Limiter(redis, "login", limit=5, per=60, kind=kind)
    if kind == "sliding":
        await redis.rpush(limiter.key(), value, value, value)
    else:
        await redis.set(limiter.key(), value)
    before = await redis.dump(limiter.key())
    with pytest.raises(errors.ResponseError, match=r"cache:q:\w+:login holds no"):
        await limiter.attempt()
    assert await redis.dump(limiter.key()) == before


@pytest.mark.parametrize(
    ("field", "options"),
    [
        ("limit", {"limit": 0}),
        ("limit", {"limit": -1}),
        ("limit", {"limit": 1.5}),
        ("limit", {"limit": True}),
        ("limit", {"limit": 10**13}),
        ("per", {"per": 0}),
        ("per", {"per": -1}),
        ("per", {"per": True}),
        ("per", {"per": None}),
        ("per", {"per": float("nan")}),
        ("per", {"per": "60"}),
        ("per", {"per": datetimes.datetime.now(datetimes.UTC)}),
        ("kind", {"kind": "leaky"}),
        ("kind", {"kind": None}),
        ("burst", {"kind": "bucket", "burst": 0}),
        ("burst", {"kind": "bucket", "burst": 2.0}),
        ("burst", {"kind": "sliding", "burst": 5}),
    ],
)
def test_rules_that_cannot_be(redis: Client, field: str, options: dict[str, Any]) -> None:
    with pytest.raises(errors.ConfigurationError, match=f"^{field} is .*; allowed: ") as caught:
        Limiter(redis, "login", **{"limit": 5, "per": 60, **options})
    assert caught.value.field == field


@pytest.mark.parametrize("cost", [0, -1, 6, 1.0, True, None])
async def test_costs_that_cannot_be(redis: Client, kind: Kind, cost: Any) -> None:
    limiter = Limiter(redis, "login", limit=5, per=60, kind=kind)
    for method in (limiter.attempt, limiter.check, limiter.hit):
        with pytest.raises(errors.ConfigurationError, match=r"cost is .*; allowed: "):
            await method(cost)
    with pytest.raises(errors.ConfigurationError, match="cost is"):
        await limiter.wait(5, cost)
    assert await redis.keys("*") == []


@pytest.mark.parametrize("timeout", [-1, float("nan"), True, "x", [1]])
async def test_timeouts_that_cannot_be(redis: Client, timeout: Any) -> None:
    with pytest.raises(errors.ConfigurationError, match="timeout is"):
        await Limiter(redis, "login", limit=5, per=60).wait(timeout)


@pytest.mark.parametrize("fields", [{}, {"ip": 1, "user": 2}, {"user": 1}, {"ip": object()}])
async def test_fields_that_are_not_the_templates(redis: Client, fields: dict[str, Any]) -> None:
    limiter = Limiter(redis, "login:{ip}", limit=5, per=60)
    for method in (limiter.attempt, limiter.check, limiter.hit, limiter.wait, limiter.reset):
        with pytest.raises(errors.InvalidKeyError, match=r"ip|user"):
            await method(**fields)
    assert await redis.keys("*") == []


async def test_values_cannot_meet(redis: Client) -> None:
    """Nobody names himself so that another one is locked out."""
    limiter = Limiter(redis, "login:{user}:{ip}", limit=1, per=60)
    pairs = [("a", "b:c"), ("a:b", "c"), ("", "a:b:c"), (None, "a"), ("None", "a"), ("%none", "a")]
    assert len({limiter.key(user=user, ip=ip) for user, ip in pairs}) == len(pairs)


@pytest.mark.parametrize("template", ["", "{", "{0}", "{}", "{cost}", "{timeout}", None])
def test_templates_that_cannot_be(redis: Client, template: Any) -> None:
    with pytest.raises(errors.InvalidKeyError):
        Limiter(redis, template, limit=5, per=60)


def test_what_they_look_like(redis: Client) -> None:
    limiter = Limiter(redis, "login:{ip}", limit=5, per=60)
    assert repr(limiter) == "<Limiter 'login:{ip}' 5 in 60 s, fixed>"
    assert msgspec.json.decode(msgspec.json.encode(Decision(True, 1, 0.0, 2.0, 3)), type=Decision).allowed
