"""Steps: a worker hands in ended jobs and claims further ones, in calls that are counted so that they can be repeated."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec

from gravito import errors
from gravito.horizon._counters import fields
from gravito.horizon._keys import Keys
from gravito.horizon._messages import Claimed, Done, Step
from gravito.horizon._pack import completions
from gravito.horizon._scripts import PASSING, Caller

__all__ = ["Steps"]

_MINUTE: Final = 60_000  # ms
_WAKE: Final = ";wake"  # behind a worker's id: the name of its claims that wait for the wake token


class _Call(msgspec.Struct):
    """A step as it was sent."""

    args: tuple[Any, ...]
    counters: str  # key of the minute's
    done: Sequence[Done]


class Steps:
    """The steps of a queue's workers.

    Args:
        caller: runs the scripts.
        keys: the queue's.
        lease_ms: of claimed jobs.
        keep: ended jobs whose results are kept, at most.
        posted: called when a completion left something in the outbox.
    """

    def __init__(
        self, caller: Caller, keys: Keys, lease_ms: int, keep: int, posted: Callable[[], None]
    ) -> None:
        self._caller = caller
        self._keys = keys
        self._lease_ms = lease_ms
        self._keep = keep
        self._posted = posted
        self._serials: defaultdict[str, int] = defaultdict(int)  # of each worker
        # Of each worker and fence, the jobs that it has: one lease covers those of a claim.
        self._open: defaultdict[str, dict[int, set[str]]] = defaultdict(dict)
        # Of each worker, or of its claims that wait, the call whose answer is not here.
        self._unanswered: dict[str, _Call] = {}
        self._voided: set[str] = set()  # claims that were given up: their serials must be known to the server

    async def step(self, worker: str, done: Sequence[Done], want: int, free: int) -> Step:
        """One exchange; see `Broker.step`."""
        await self._caller.ready()
        late = self._unanswered.get(worker)
        if late is None:
            return await self._run(worker, self._call(worker, done, want, free))
        # It was given up, or its caller was cancelled. It may have claimed jobs that nobody knows of: ask again.
        first = await self._run(worker, late)
        handed_in = {(one.id, one.fence) for one in late.done}
        rest = [one for one in done if (one.id, one.fence) not in handed_in]
        want -= len(first.claimed)
        if not rest and want <= 0:
            return first
        try:
            free = max(0, min(want, free - len(first.claimed)))
            second = await self._run(worker, self._call(worker, rest, max(want, 0), free))
        except errors.GravitoError:
            if (
                rest
            ):  # they are part of a call that the next step repeats; what was claimed must not wait for that
                return first
            raise
        return Step(
            second.now_ms, second.next_due_ms, first.claimed + second.claimed, first.refused + second.refused
        )

    async def claim_on_wake(self, worker: str, want: int, timeout: float) -> Step:
        """Wait for the wake token and claim; see `Broker.claim_on_wake`."""
        await self._caller.ready()
        name = worker + _WAKE
        assert name not in self._unanswered  # `settle` comes first
        call = self._unanswered[name] = self._call(worker, (), want, want, name)
        reply = await self._caller.run_on_wake("step", call.args, call.counters, timeout=timeout)
        del self._unanswered[name]
        return self._read(worker, reply)

    async def settle(self, worker: str, patience: float | None) -> Step | None:
        """What became of a claim that was given up; see `Broker.settle`."""
        name = worker + _WAKE
        call = self._unanswered.get(name)
        if call is None:
            return None
        self._voided.add(name)
        # the same call, wanting nothing: what is still on its way will be taken for a repetition of this one
        args = (*call.args[:3], 0, *call.args[4:])
        reply = await self._caller.run("step", args, call.counters, patience=patience)
        del self._unanswered[name]
        return self._read(worker, reply)

    def forget(self, worker: str) -> list[str]:
        """A worker ends; the names under which the server has its serials, as far as these can go."""
        names = [worker, worker + _WAKE]
        for name in names:
            self._serials.pop(name, None)
            self._unanswered.pop(name, None)
        self._open.pop(worker, None)
        return [name for name in names if name not in self._voided]

    def _call(
        self, worker: str, done: Sequence[Done], want: int, free: int, name: str | None = None
    ) -> _Call:
        name = name or worker
        self._serials[name] += 1
        ended = None
        if done:
            ended = completions(done, fields, self._keys.queue, self._closed(worker, done))
        args = (worker, self._serials[name], self._lease_ms, want, self._keep, ended, name, free)
        return _Call(args, self._keys.minute(self._caller.now_ms() // _MINUTE), done)

    async def _run(self, worker: str, call: _Call) -> Step:
        self._unanswered[worker] = call
        try:
            reply = await self._caller.run("step", call.args, call.counters)
        except errors.ResponseError as error:
            if not isinstance(error, PASSING):  # that is an answer
                del self._unanswered[worker]
            raise
        del self._unanswered[worker]
        return self._read(worker, reply)

    def _read(self, worker: str, reply: list[Any]) -> Step:
        if len(reply) < 2:
            raise errors.HorizonError(f"worker {worker}: a later step came first; is its id used twice?")
        now, due, fence, ids, bodies, odd, refused, outbox = reply
        if outbox:
            self._posted()
        claimed = _claimed(fence, ids, bodies, odd) if bodies else []
        if claimed:
            self._open[worker][fence] = {job.id for job in claimed}
        return Step(now, None if due < 0 else due, claimed, refused.decode().split())

    def _closed(self, worker: str, done: Sequence[Done]) -> list[int]:
        """Fences of claims whose jobs have all been handed in now: their leases can go."""
        claims, closed = self._open[worker], []
        for one in done:
            jobs = claims.get(one.fence)
            if jobs is not None:
                jobs.discard(one.id)
                if not jobs:
                    del claims[one.fence]
                    closed.append(one.fence)
        return closed


def _claimed(fence: int, ids: bytes, bodies: list[bytes | None], odd: list[Any]) -> list[Claimed]:
    names = ids.decode().split(" ")
    pairs = zip(names, bodies, strict=True)
    if not odd:  # a body that is gone was cancelled before this answer was repeated
        return [Claimed(name, fence, 1, 0, body) for name, body in pairs if body is not None]
    tries = {at: rest for at, *rest in zip(*[iter(odd)] * 4, strict=True)}
    claimed = []
    for at, (name, body) in enumerate(pairs):
        failed, crashes, note = tries.get(at, (0, 0, b""))
        if body is not None:
            claimed.append(Claimed(name, fence, failed + 1, crashes, body, note or None))
    return claimed
