"""One run of a factory, shared by all of an event loop who wait for it; or the wait for another process' run.

Nobody joins a run that began before an invalidation that came before their own read: who joins has read the claim
of this very run on the server, or has begun to read before its factory began.
"""

from __future__ import annotations

import asyncio
import random
from asyncio import Future, get_running_loop
from collections.abc import Iterable
from contextvars import ContextVar
from inspect import isawaitable
from typing import TYPE_CHECKING, Any, Final

import msgspec

from gravito import errors
from gravito.stasis import _negative
from gravito.stasis._blob import NEGATIVE, PENDING, VALUE, Blob, id_of, new_id
from gravito.stasis._claim import Claim
from gravito.stasis._names import check_tag
from gravito.stasis._policy import UNSET, Factory, Policy, Result
from gravito.stasis._reads import Found, Scope, Verdict, age_of, look, needs_age, verdict

if TYPE_CHECKING:
    from gravito.stasis._core import Core

__all__ = ["Flight", "Job", "Landing", "landing_of"]

_POLL: Final = (0.06, 0.1)  # seconds between two looks at another process' claim

# The run whose factory is the caller: what it waits for must not wait for it.
_around: ContextVar[Flight | None] = ContextVar("gravito_stasis_flight", default=None)


class Job(msgspec.Struct, frozen=True, eq=False):
    """What is to be computed."""

    key: str
    entry: str
    scope: Scope
    tags: tuple[str, ...]
    policy: Policy
    factory: Factory

    def tag_keys(self, tags: Iterable[str]) -> tuple[str, ...]:
        """The keys of versions of some tags."""
        return tuple([self.scope.tag + tag for tag in tags])


class Landing(msgspec.Struct, frozen=True, eq=False):
    """What a run brought. Everybody but the first makes a copy of their own from the body."""

    value: Any
    body: bytes | None = None
    kept_error: bytes | None = None
    stale: bool = False  # the last good value: the factory failed
    stored: bool = False  # it was there already

    async def take(self, core: Core, job: Job, first: bool) -> Any:
        """The value for one caller.

        Raises:
            Exception: the one that is kept.
        """
        if self.kept_error is not None:
            error = _negative.revive(self.kept_error, [kind for kind, _ in job.policy.errors])
            raise error or errors.UnreadableValueError(
                f"{job.key!r}: an exception is kept that `errors` does not name"
            )
        if first or self.body is None:
            return self.value
        return await core.codec.decode_apart(self.body, job.entry, job.policy.type)


async def landing_of(core: Core, job: Job, blob: Blob, stale: bool = False) -> Landing | None:
    """What is stored already, for those who wait for it; None, with an event, if it cannot be read."""
    if blob.kind == NEGATIVE:
        kinds = [kind for kind, _ in job.policy.errors]
        return Landing(UNSET, None, blob.body) if _negative.revive(blob.body, kinds) is not None else None
    try:
        value = await core.decode(blob, job.entry, job.policy.type)
    except errors.UnreadableValueError as error:
        core.count_error(job.key, error, job.policy.template)
        return None
    return Landing(value, blob.body if blob.kind == VALUE else None, stale=stale, stored=True)


class Flight:
    """A run in one event loop. `background` is one that nobody waits for: its entry has a value that serves."""

    def __init__(self, core: Core, job: Job, background: bool = False) -> None:
        self._core = core
        self._job = job
        self._background = background
        self._claim = Claim(core, job)
        self.future: Future[Landing] = get_running_loop().create_future()
        self.claiming = not background  # whatever it will bring is read or computed after now
        self.started = 0  # which factory run of the process it is; 0: none yet
        self.spell = 0  # begun without the store, in this spell of the breaker
        self.waits: set[Flight] = set()  # runs that its factory waits for
        self._awaited: bytes | None = None  # another process' claim that this waits for
        self._task: asyncio.Task[None] | None = None

    # -- those who wait --------------------------------------------------------------------------------------

    def takes(self, found: Found | None, began: int) -> bool:
        """Whether who began to read when `began` factories had been started, and found this, may join."""
        if self.claiming or self.started > began:
            return True
        if found is None:
            return self._core.guard.open and self.spell == self._core.guard.spell
        return found.live and found.blob is not None and found.blob.id in (self._claim.token, self._awaited)

    async def join(self) -> Landing:
        """Wait for it; cancelling the caller leaves it running.

        Raises:
            CacheError: the run waits for the caller.
            Exception: the factory's.
        """
        caller = _around.get()
        if caller is None or caller.future.done():
            return await asyncio.shield(self.future)
        if self._leads_to(caller):
            raise errors.CacheError(
                f"{self._job.key!r}: its factory waits for its own value, directly or by way of other keys; "
                "let it compute without the cache, or use another key"
            )
        caller.waits.add(self)
        try:
            return await asyncio.shield(self.future)
        finally:
            caller.waits.discard(self)

    def _leads_to(self, other: Flight) -> bool:
        seen: set[Flight] = set()
        open_ = [self]
        while open_:
            flight = open_.pop()
            if flight is other:
                return True
            if flight not in seen:
                seen.add(flight)
                open_.extend(flight.waits)
        return False

    # -- the run ---------------------------------------------------------------------------------------------

    def start(self, found: Found | None, flights: dict[str, Flight]) -> None:
        """Go, in a task of its own; `found` is what the first caller read, None if there is no store."""
        self.future.add_done_callback(_seen)
        name = f"gravito cache {self._job.key}"
        self._task = get_running_loop().create_task(self._run(found, flights), name=name)

    async def _run(self, found: Found | None, flights: dict[str, Flight]) -> None:
        _around.set(self)
        try:
            landing = await self._wait_for_turn(found)
            if landing is None:
                landing = await self._compute()
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():  # the loop ends
                self.future.cancel()
                raise
            self._fail(errors.CacheError(f"{self._job.key!r}: its factory was cancelled"))
        except BaseException as error:
            self._fail(error)
            if not isinstance(error, Exception):
                raise
        else:
            if not self.future.done():
                self.future.set_result(landing)
        finally:
            self._claim.rest()
            if flights.get(self._job.entry) is self:
                del flights[self._job.entry]

    def _fail(self, error: BaseException) -> None:
        if not self.future.done():
            self.future.set_exception(error)

    # -- whose turn it is ------------------------------------------------------------------------------------

    async def _wait_for_turn(self, found: Found | None) -> Landing | None:
        """A value that somebody else computed; None when it is this one's turn."""
        if found is None:
            self._go_alone()
            return None
        try:
            if self._background:
                return None if await self._claim.take(found) else Landing(UNSET)
            return await self._contend(found)
        except Exception as error:
            self._core.lost(error, self._job.key, self._job.policy.template)
            if self._background:
                return Landing(UNSET)
            self._go_alone()
            return None

    async def _contend(self, found: Found) -> Landing | None:
        while True:
            choice, over = verdict(found, self._job.policy), False
            if choice in (Verdict.HIT, Verdict.STALE):
                assert found.blob is not None
                landing = await landing_of(self._core, self._job, found.blob, choice is Verdict.STALE)
                if landing is not None:
                    return landing
                choice, over = Verdict.CLAIM, True
            if choice is Verdict.WAIT:
                await self._wait(found)
            else:
                self.claiming = True
                if await self._claim.take(found, over=over):
                    return None
            self.claiming, self._awaited = False, None
            found = await self._look()

    def _go_alone(self) -> None:
        """Compute without the store: nothing is claimed, nothing will be stored."""
        self.spell = self._core.guard.spell
        self._claim = Claim(self._core, self._job)

    async def _look(self) -> Found:
        core, job = self._core, self._job
        policy = job.policy
        found = await look(core, job.scope, job.entry, job.tags, timed=policy.timed, template=policy.template)
        if needs_age(found):
            await age_of(core, job.entry, found)
        return found

    async def _wait(self, found: Found) -> None:
        """Until another process' claim is gone, or has become a value. One poll for all who wait here."""
        blob, loop = found.blob, get_running_loop()
        assert blob is not None
        self.claiming, self._awaited = False, blob.id
        until = None
        if blob.kind != PENDING and found.left is not None:
            until = loop.time() + (found.left - blob.mark_ms) / 1000
        core, entry = self._core, self._job.entry
        while True:
            await asyncio.sleep(random.uniform(*_POLL))
            (raw,) = await core.guard.within(core.store.read((entry,)))
            if raw is None or id_of(raw) != blob.id or (until is not None and loop.time() > until):
                return

    # -- the factory -----------------------------------------------------------------------------------------

    async def _compute(self) -> Landing:
        core, job, loop = self._core, self._job, get_running_loop()
        core.started += 1
        self.started, self.claiming = core.started, False
        counts = core.counts(job.key, job.policy.template)
        counts.runs += 1
        since = loop.time()
        self._claim.hold()
        try:
            result = job.factory()
            if isawaitable(result):
                result = await result
        except Exception as error:
            self._claim.rest()
            return await self._failed(error)
        except BaseException:
            self._claim.rest()
            await self._give_up()
            raise
        seconds = loop.time() - since
        counts.run_ms += int(seconds * 1000)
        return await self._store(result, seconds)

    async def _store(self, result: Any, seconds: float) -> Landing:
        """Put the value in the claim's place, if it is still there."""
        core, job = self._core, self._job
        made = result if isinstance(result, Result) else Result(result)
        try:
            life = job.policy.life(made.ttl, made.value) if made.store else None
            for tag in made.tags:
                check_tag(tag)
            body = await core.encode(made.value, job.entry, job.policy.type) if life is not None else None
        except Exception:
            self._claim.rest()
            await self._give_up()
            raise
        self._claim.rest()  # not before: encoding a large value may take long
        if life is None or body is None:
            await self._give_up()
            return Landing(made.value)
        blob = Blob(VALUE, new_id(), body, stale_ms=life.stale_ms, flags=life.flags)
        blob.cost_ms = int(seconds * 1000)
        try:
            if await self._claim.put(blob, life.ttl_ms, made.tags):
                core.remember_tags(job.entry, job.scope, blob.tags)
                core.wrote(job.key, job.policy.template, tags=tuple(blob.tags), seconds=seconds)
        except Exception as error:
            core.lost(error, job.key, job.policy.template)
        return Landing(made.value, body)

    async def _failed(self, error: Exception) -> Landing:
        """The factory failed: keep that if it is wished; serve the last good value if there is one."""
        core, job, claim = self._core, self._job, self._claim
        kept_ms = job.policy.kept(error)
        if kept_ms is None and claim.ground is not None:
            core.count_error(job.key, error, job.policy.template)
            try:
                await claim.pause(core.retry_ms)
            except Exception as lost:
                core.lost(lost, job.key, job.policy.template, quiet=True)
            landing = await landing_of(core, job, claim.ground, stale=True)
            if landing is not None:
                return landing
        elif kept_ms is not None:
            try:
                await claim.put(Blob(NEGATIVE, new_id(), _negative.pack(error)), kept_ms)
            except Exception as lost:
                core.lost(lost, job.key, job.policy.template, quiet=True)
        else:
            await self._give_up()
        raise error

    async def _give_up(self) -> None:
        """Without the store the claim ends by itself."""
        try:
            await self._claim.give_up()
        except Exception as error:
            self._core.lost(error, self._job.key, self._job.policy.template, quiet=True)


def _seen(future: Future[Any]) -> None:
    """An error that nobody waits for any more is no news; callers that do wait get it."""
    if not future.cancelled():
        future.exception()
