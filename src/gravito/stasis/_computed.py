"""Values that the cache has computed: remember and its kin."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping, Sequence
from datetime import timedelta
from typing import Any, Final, Unpack

import msgspec

from gravito import errors
from gravito.stasis._atomic import Atomic
from gravito.stasis._blob import id_of
from gravito.stasis._codec import LATER
from gravito.stasis._flight import Flight, Job, landing_of
from gravito.stasis._policy import UNSET, Factory, Options, Policy, RefreshOptions, Unset, policy_of
from gravito.stasis._reads import Found, Verdict, is_stale, look, verdict, wants_refresh
from gravito.stasis._several import keyed, turns
from gravito.stasis._stats import Counts
from gravito.stasis._ttl import TTL

__all__ = ["Computed"]

_MOST_POLICIES: Final = 1000


class Computed(Atomic):
    """See above."""

    def remember(
        self,
        key: str,
        ttl: TTL | Unset = UNSET,
        factory: Factory | None = None,
        **options: Unpack[Options],
    ) -> Coroutine[Any, Any, Any]:
        """The value at a key; if there is none, the factory's, which is stored.

        However many ask, in however many processes: the factory runs once, and the others wait for it. It belongs to
        no caller: one who is cancelled leaves it running. A factory that is killed with its process is taken over
        within the lease. What is invalidated while it runs is not stored; the next read computes anew.

        Args:
            key: 1 to 1024 bytes of UTF-8.
            ttl: seconds, a timedelta, an aware datetime, or None for without end; the cache's own if not given.
            factory: a function without arguments, plain or async. It returns the value, or a `Result`. A plain one
                runs in the event loop.
            **options: `type`: what stored values are checked against and built into. `jitter`: fraction by which
                the ttl is shortened at random, at most. `early`: fraction at the end of the ttl in which a hit may
                refresh the value in the background. `stale`: seconds beyond the ttl for which the last value
                serves when the factory fails. `none_ttl`: another ttl for None, 0 to not keep it. `errors`:
                exceptions that are kept, and for how long. `template`: what statistics count the key with.

        Raises:
            InvalidKeyError, InvalidTTLError, ConfigurationError: an argument that cannot be used.
            SerializationError: the value cannot be stored.
            CacheError: the factory waits for itself.
            Exception: whatever the factory raises.
        """
        return self._remember(key, self._policy(ttl, options), factory)

    def remember_forever(
        self, key: str, factory: Factory | None = None, **options: Unpack[Options]
    ) -> Coroutine[Any, Any, Any]:
        """`remember` without end."""
        return self._remember(key, self._policy(None, options), factory)

    def flexible(
        self,
        key: str,
        fresh: float | timedelta,
        stale: float | timedelta,
        factory: Factory | None = None,
        **options: Unpack[RefreshOptions],
    ) -> Coroutine[Any, Any, Any]:
        """Stale while revalidate: past its fresh time a value is given out at once and computed anew behind that.

        Args:
            key: 1 to 1024 bytes of UTF-8.
            fresh: seconds for which nothing is computed.
            stale: seconds beyond that for which the old value serves while one process computes the new one; 0: none.
            factory: as of `remember`.
            **options: as of `remember`.
        """
        if options:
            policy: Policy | None = policy_of(
                fresh, Options(stale=stale, **options), flexible=True, name="fresh"
            )
        else:
            known = fresh.__class__, fresh, stale.__class__, stale
            try:
                policy = self._policies.get(known)
            except TypeError:  # no time at all
                policy = None
            if policy is None:
                policy = policy_of(fresh, Options(stale=stale), flexible=True, name="fresh")
                self._keep_policy(known, policy)
        assert policy is not None
        return self._remember(key, policy, factory)

    def _policy(self, ttl: TTL | Unset, options: Options) -> Policy:
        if ttl is UNSET:
            ttl = self._core.ttl
        if options:
            return policy_of(ttl, options)
        known = ttl.__class__, ttl
        try:
            policy = self._policies.get(known)
        except TypeError:  # no time at all
            policy = None
        if policy is None:
            policy = policy_of(ttl, options)
            self._keep_policy(known, policy)
        return policy

    def _keep_policy(self, known: Any, policy: Policy) -> None:
        if len(self._policies) >= _MOST_POLICIES:
            self._policies.clear()
        self._policies[known] = policy

    async def _remember(self, key: str, policy: Policy, factory: Factory | None) -> Any:
        entry, keys, counts = self._seek(key)
        if not callable(factory):
            raise errors.ConfigurationError(
                f"{key!r}: the factory is {factory!r}; give a function without arguments", field="factory"
            )
        core = self._core
        began = core.started
        raw: bytes | None = None
        behind: Sequence[bytes | None] = ()
        try:
            if core.guard.open:
                core.guard.check()
            found: Found | None
            if policy.timed:
                found = await look(core, self._scope, entry, self._tags, timed=True, template=policy.template)
                found = await self._aged(entry, found)
            else:
                plan = core.plans_of.get(entry) or self._plan
                if plan is not self._plan:
                    keys = (entry, *plan.keys)
                value = LATER if core.near is None else core.near.find(keys, entry, plan, policy.type)
                if value is LATER:
                    raw, behind = await core.reads().ask(entry, keys, plan)
                    if raw is not None and plan.matches(raw, behind):
                        value = core.codec.decode_now(raw, entry, policy.type, plan.body)
                if value is not LATER:
                    self._count_fresh(key, policy, counts)
                    return value
                found = await self._made_of(entry, plan, [raw, *behind], policy.template)
        except errors.UnreadableValueError as error:
            core.unreadable(entry, error, policy.template)
            found = Found(id_of(raw or b""), None, False, tuple(behind[: len(self._roots)]))
        except Exception as error:
            core.lost(error, key, policy.template)
            found = None
        job = Job(key, entry, self._scope, self._tags, policy, factory)
        return await self._decide(job, found, began)

    async def _decide(self, job: Job, found: Found | None, began: int) -> Any:
        """Give out what was found, or wait for the factory."""
        core, key, policy = self._core, job.key, job.policy
        counts = core.counts(key, policy.template)
        if found is not None and found.blob is not None:
            choice = verdict(found, policy)
            if choice in (Verdict.HIT, Verdict.STALE):
                landing = await landing_of(core, job, found.blob, choice is Verdict.STALE)
                if landing is not None:
                    self._count_hit(job, found)
                    if wants_refresh(found, policy):
                        self._refresh(job, found)
                    return await landing.take(core, job, True)
                found = msgspec.structs.replace(found, blob=None, live=False)
        counts.misses += 1
        if core.events.miss:
            core.tell("miss", key, policy.template)
        flights = core.flights()
        flight = flights.get(job.entry)
        mine = flight is None or not flight.takes(found, began)
        if flight is None or mine:
            flight = flights[job.entry] = Flight(core, job)
            flight.start(found, flights)
        landing = await flight.join()
        if landing.stale:
            counts.stales += 1
            if core.events.stale:
                core.tell("stale", key, policy.template)
        return await landing.take(core, job, mine)

    def _count_fresh(self, key: str, policy: Policy, counts: Counts) -> None:
        core = self._core
        if policy.template is not None:
            counts = core.tallies.named(policy.template)
        elif core.tallies.idle:
            core.tallies.wake()
        counts.hits += 1
        if core.events.hit:
            core.tell("hit", key, policy.template)

    def _count_hit(self, job: Job, found: Found) -> None:
        core = self._core
        counts = core.counts(job.key, job.policy.template)
        counts.hits += 1
        if is_stale(found):
            counts.stales += 1
            if core.events.stale:
                core.tell("stale", job.key, job.policy.template)
        elif core.events.hit:
            core.tell("hit", job.key, job.policy.template)

    def _refresh(self, job: Job, found: Found) -> None:
        """Compute it anew in the background, unless that is under way."""
        flights = self._core.flights()
        if job.entry not in flights:
            flight = flights[job.entry] = Flight(self._core, job, background=True)
            flight.start(found, flights)

    async def warm(
        self,
        factories: Mapping[str, Factory],
        ttl: TTL | Unset = UNSET,
        *,
        concurrency: int = 10,
        **options: Unpack[Options],
    ) -> dict[str, BaseException]:
        """Compute what is missing, before anybody asks for it.

        Args:
            factories: the factory of each key, as of `remember`.
            ttl: as of `remember`.
            concurrency: how many are looked at and computed at the same time.
            **options: as of `remember`.

        Returns:
            The keys whose factory failed, with its error. The others have a value.

        Raises:
            InvalidTTLError, ConfigurationError: an argument that cannot be used; nothing ran.
        """
        policy, turn = self._policy(ttl, options), turns(concurrency)
        factories = keyed("factories", factories)
        failed: dict[str, BaseException] = {}

        async def one(key: str, factory: Factory) -> None:
            async with turn:
                try:
                    await self._remember(key, policy, factory)
                except Exception as error:
                    failed[key] = error

        await asyncio.gather(*[one(key, factory) for key, factory in factories.items()])
        return failed
