"""Rate limiters: how often something may be done, decided in one script by the server's clock.

Three kinds, by what they promise:

- "fixed": a window begins with the first call and lasts `per`; at most `limit` in each window. The cheapest, one
  counter; two windows may meet, so an interval of the same length may hold up to twice the limit.
- "sliding": at most `limit` in every interval of length `per`, wherever it begins. A log of what was allowed, not two
  weighted counters: those guess how calls were spread over the last window, and so allow too much or too little.
  Exact up to 128 calls; above, times are rounded up to `per`/128, so that the log stays short, and a call
  is given back by up to that much late. The promise holds for both.
- "bucket": tokens flow in at `limit` in each `per`, up to `burst` of them; at most `burst + limit * t / per` in
  every interval t. For a steady rate with room for bursts.
"""

from __future__ import annotations

import asyncio
import math
from datetime import timedelta
from typing import Any, Final, Literal

import msgspec

from gravito import errors
from gravito.atlas import Client
from gravito.atlas.script import Script
from gravito.stasis._line import crowd_of
from gravito.stasis._names import Template
from gravito.stasis._scripts import source
from gravito.stasis._ttl import ttl_ms

__all__ = ["Decision", "Kind", "Limiter", "Rule", "decide"]

Kind = Literal["fixed", "sliding", "bucket"]

_KINDS: Final = ("fixed", "sliding", "bucket")
_MOST: Final = 10**12  # a limit above is a mistake
_GRAINS: Final = 128  # entries of a sliding log, at most
_RESERVED: Final = frozenset({"self", "cost", "timeout"})


class Decision(msgspec.Struct, frozen=True):
    """A limiter's answer; true if it allows.

    `check` answers for a call that it does not count.
    """

    allowed: bool
    remaining: int  # what may still be spent now
    retry_after: float  # seconds until the same call would be allowed if nobody else calls; 0.0 if it is
    reset_after: float  # seconds until nothing is used up any more
    limit: int  # what `remaining` counts down from: the limit, or a bucket's burst

    def __bool__(self) -> bool:
        return self.allowed


class Rule(msgspec.Struct, frozen=True):
    """How much is allowed. Made by `Rule.of`, which checks it."""

    limit: int
    per_ms: int
    kind: Kind
    burst: int  # of a bucket; the limit for other kinds

    @classmethod
    def of(cls, limit: int, per: float | timedelta, kind: Kind = "fixed", burst: int | None = None) -> Rule:
        """A rule.

        Args:
            limit: calls, or units of cost, in each `per`.
            per: seconds or a timedelta, at least a millisecond.
            kind: "fixed", "sliding" or "bucket".
            burst: of a bucket: tokens that it holds; the limit if None.

        Raises:
            ConfigurationError: names the argument that cannot be used, and what is allowed.
        """
        if kind not in _KINDS:
            raise _wrong("kind", kind, " | ".join(map(repr, _KINDS)))
        _whole("limit", limit)
        if burst is not None:
            if kind != "bucket":
                raise _wrong("burst", burst, f"None for kind {kind!r}: only a bucket has one")
            _whole("burst", burst)
        return cls(limit, _milliseconds(per), kind, limit if burst is None else burst)

    @property
    def script(self) -> str:
        """Name of the script that decides, in `scripts/`; its one key is the limiter's."""
        return f"limit_{self.kind}.lua"

    def args(self, cost: int = 1, spend: bool = True) -> tuple[int, ...]:
        """The script's ARGV.

        Raises:
            ConfigurationError: a cost below 1, or one that can never be allowed.
        """
        _whole("cost", cost)
        if cost > self.burst:
            raise _wrong("cost", cost, f"at most {self.burst}, for more is never allowed at once")
        per = self.per_ms * 1000
        if self.kind == "fixed":
            return (self.limit, per, cost, int(spend))
        if self.kind == "sliding":
            return (
                self.limit,
                per,
                cost,
                int(spend),
                1 if self.limit <= _GRAINS else math.ceil(per / _GRAINS),
            )
        common = math.gcd(self.limit, per)  # the smallest units, so that numbers stay exact
        token = per // common
        return (self.burst * token, token, cost, int(spend), self.limit // common)

    def decision(self, reply: list[int]) -> Decision:
        """What the script's result says."""
        allowed, remaining, retry, reset, _ = reply
        return Decision(bool(allowed), remaining, retry / 1e6, reset / 1e6, self.burst)


async def decide(client: Client, key: str, rule: Rule, cost: int = 1, *, spend: bool = True) -> Decision:
    """One decision, without a `Limiter`: one script on one key.

    Args:
        client: where the key lives.
        key: the whole key; keep those of different kinds apart.
        rule: how much is allowed.
        cost: what the call costs.
        spend: False only asks.

    Raises:
        ConfigurationError: a cost below 1, or one that can never be allowed.
    """
    script = client.script(source(rule.script), rule.script)
    return rule.decision(await script((key,), rule.args(cost, spend)))


class Limiter:
    """How often something may be done, by whom. Making one sends nothing.

    Example: `await Limiter(client, "login:{ip}", limit=10, per=60).attempt(ip="10.0.0.1")`

    The kinds and what they promise are in this module's description. Clocks of applications play no part.

    Args:
        client: where the counts live; each on one key.
        template: names what is limited, with a `{field}` for each keyword argument of the calls.
        limit: calls, or units of cost, in each `per`.
        per: seconds or a timedelta.
        kind: "fixed", "sliding" or "bucket".
        burst: of a bucket: tokens that it holds; the limit if None.
        prefix: begins the keys.

    Raises:
        ConfigurationError: names the argument that cannot be used, and what is allowed.
        InvalidKeyError: the template cannot be used.
    """

    def __init__(
        self,
        client: Client,
        template: str,
        *,
        limit: int,
        per: float | timedelta,
        kind: Kind = "fixed",
        burst: int | None = None,
        prefix: str = "cache",
    ) -> None:
        self.rule = Rule.of(limit, per, kind, burst)
        self.template = template
        self._client = client
        self._name = Template(template)
        if reserved := _RESERVED & self._name.names:
            raise errors.InvalidKeyError(
                f"limiter {template!r}: a field cannot be called {sorted(reserved)[0]!r}, as an argument of its calls is"
            )
        # The kind is in the key: what is kept differs, and a limiter may change its kind while the old keys live.
        self._prefix = f"{prefix}:q:{kind}:"
        self._script: Script = client.script(source(self.rule.script), self.rule.script)

    def __repr__(self) -> str:
        rule = self.rule
        return f"<Limiter {self.template!r} {rule.limit} in {rule.per_ms / 1000:g} s, {rule.kind}>"

    async def attempt(self, /, cost: int = 1, **fields: Any) -> Decision:
        """Count a call if it is allowed; what is refused counts nothing.

        Args:
            cost: what it costs, from 1 to the limit (or a bucket's burst).
            **fields: the template's.

        Raises:
            ConfigurationError: a cost that is never allowed.
            InvalidKeyError: a field that is missing, or that the template lacks.
        """
        return await self._decide(self.key(**fields), cost, True)

    async def check(self, /, cost: int = 1, **fields: Any) -> Decision:
        """What `attempt` would answer, without counting; arguments and errors are the same."""
        return await self._decide(self.key(**fields), cost, False)

    async def hit(self, /, cost: int = 1, **fields: Any) -> Decision:
        """As `attempt`, but a refusal is an error.

        Raises:
            LimitExceededError: with `retry_after` in seconds, `remaining` and `limit`.
        """
        decision = await self.attempt(cost, **fields)
        if not decision:
            raise errors.LimitExceededError(
                f"limiter {self.template!r} allows {self.rule.limit} in {self.rule.per_ms / 1000:g} s; "
                f"try again in {decision.retry_after:.3g} s",
                retry_after=decision.retry_after,
                remaining=decision.remaining,
                limit=decision.limit,
            )
        return decision

    async def wait(self, /, timeout: float | None = None, cost: int = 1, **fields: Any) -> Decision:
        """Count a call as soon as it is allowed. Waiters of one process go one after the other, in their order.

        Args:
            timeout: seconds; None waits for ever.
            cost: what it costs.
            **fields: the template's.

        Returns:
            What was allowed; or the refusal, at once if it is known to last longer than the timeout.

        Raises:
            ConfigurationError: a timeout that is no number from 0 on, or a cost that is never allowed.
        """
        number = isinstance(timeout, int | float) and not isinstance(timeout, bool)
        if timeout is not None and not (number and timeout >= 0):
            raise _wrong("timeout", timeout, "seconds from 0, or None to wait for ever")
        loop, key = asyncio.get_running_loop(), self.key(**fields)
        deadline = None if timeout is None else loop.time() + timeout
        try:
            async with crowd_of(self._client).turn(key, deadline):
                while True:
                    decision = await self._decide(key, cost, True)
                    if decision or (deadline is not None and loop.time() + decision.retry_after > deadline):
                        return decision
                    await asyncio.sleep(decision.retry_after)
        except TimeoutError:  # others of this process were before us all the time
            return await self._decide(key, cost, True)

    async def reset(self, /, **fields: Any) -> bool:
        """Forget what was counted; True if there was anything. https://redis.io/commands/unlink"""
        return bool(await self._client.unlink(self.key(**fields)))

    def key(self, /, **fields: Any) -> str:
        """The key that holds the count.

        Raises:
            InvalidKeyError: a field that is missing, or that the template lacks.
        """
        if unknown := fields.keys() - self._name.names:
            known = ", ".join(sorted(self._name.names)) or "no fields"
            raise errors.InvalidKeyError(
                f"limiter {self.template!r} has no field {sorted(unknown)[0]!r}; it has {known}"
            )
        return self._prefix + self._name.render(fields)

    async def _decide(self, key: str, cost: int, spend: bool) -> Decision:
        return self.rule.decision(await self._script((key,), self.rule.args(cost, spend)))


def _wrong(field: str, value: Any, allowed: str) -> errors.ConfigurationError:
    return errors.ConfigurationError(
        f"{field} is {value!r}; allowed: {allowed}", field=field, value=value, allowed=allowed
    )


def _whole(field: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= _MOST:
        raise _wrong(field, value, f"a whole number from 1 to {_MOST}")


def _milliseconds(per: Any) -> int:
    ms = None
    if isinstance(per, int | float | timedelta) and not isinstance(per, bool):
        try:
            ms = ttl_ms(per)
        except errors.InvalidTTLError:
            pass
    if ms is None:
        raise _wrong("per", per, "seconds or a timedelta, more than 0 and at most 100 years")
    return ms
