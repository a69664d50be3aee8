"""The broker: every move that a job makes in its queue, each one script on the server.

Delivery: an accepted push is one job for its id; a claimed job is leased, and a lease that nobody renews ends, so a
job runs at least once; a completion is accepted only from the latest claim (`fence`), so at most one is. How durable
an accepted push is, is the server's matter: its append-only file, its replicas.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from typing import Any, Final, Literal

import msgspec

from gravito import errors
from gravito.atlas.client import Client
from gravito.horizon._counts import Counts
from gravito.horizon._endings import Endings
from gravito.horizon._keys import Keys
from gravito.horizon._messages import Claimed, Done, Envelope, Kept, Look, Pushed, Sizes, Step
from gravito.horizon._pack import check, raw
from gravito.horizon._pusher import Pusher
from gravito.horizon._relay import Note, Relay
from gravito.horizon._scripts import Caller
from gravito.horizon._steps import Steps
from gravito.horizon._turns import Together

__all__ = ["Broker", "Retention"]

_CRASHES: Final = 3  # claims whose worker went silent, until the job is given up
_SWEEP_EVERY: Final = 3  # of a worker's calls of `keep`; it is for tokens that were lost with a worker
_PRUNE_EVERY: Final = 30
# Jobs that one call of `purge`, `retry` or `cancel` moves: the server does nothing else meanwhile.
_AT_ONCE: Final = 250

Part = Literal["ready", "delayed", "parked", "done", "dead"]


class Retention(msgspec.Struct, frozen=True):
    """How long ended jobs are kept; whichever bound is reached first."""

    done: int = 10_000  # results
    done_ms: int = 3_600_000
    dead: int = 100_000
    dead_ms: int = 30 * 86_400_000


class Broker:
    """One queue on the server, for producers and workers of one event loop.

    Args:
        client: the connection.
        queue: the queue's name.
        prefix: what all keys of queues begin with.
        lease_ms: how long a claimed job is a worker's own without being renewed.
        retention: how long ended jobs are kept.
        patience: seconds for which a call is repeated while the server is away.
        allow_eviction: use a server that may evict jobs when its memory is full.

    Raises:
        ConfigurationError: the queue's name. From the first call: the server evicts keys.
    """

    def __init__(
        self,
        client: Client,
        queue: str,
        *,
        prefix: str = "horizon",
        lease_ms: int = 10_000,
        retention: Retention | None = None,
        patience: float = 30.0,
        allow_eviction: bool = False,
    ) -> None:
        self.queue = queue
        self.client = client
        self.keys = Keys(queue, prefix, client.settings.key_prefix)
        self.lease_ms = lease_ms
        self.retention = retention or Retention()
        self._prefix = prefix
        self._patience = patience
        self._caller = Caller(client, self.keys, patience, None if allow_eviction else queue)
        # The server's clock in ms, as its last answer told it. Called for each job, so there is nothing between.
        self.now_ms: Callable[[], int] = self._caller.now_ms
        self._pusher = Pusher(self._caller)
        self._endings = Endings(client, self.keys, self._caller)
        self.counts = Counts(self._caller, self.keys)
        self._relay = Relay(queue, self._caller, self._other)
        self._looks = Together(self._look_at)
        self._steps = Steps(self._caller, self.keys, lease_ms, self.retention.done, self._relay.start)
        self._kept: dict[str, int] = {}  # how often each worker called `keep`

    def __repr__(self) -> str:
        return f"<Broker {self.queue} at {self.client.settings.address}>"

    # -- producers -------------------------------------------------------------------------------------------

    def push(self, job: Envelope) -> Awaitable[Pushed]:
        """Push a job; all pushes of a loop turn travel together.

        Raises:
            PayloadError: a field that the queue cannot take; at once, and nothing is sent.
            OutOfMemoryError: the server has no room; nothing was written. From the awaitable.
        """
        return self._pusher.push(check(job))

    async def push_many(self, jobs: Iterable[Envelope]) -> list[Pushed]:
        """Push many jobs, some hundred in a call; answers in their order."""
        return [pushed async for part in self.pushing(jobs) for pushed in part]

    async def pushing(self, jobs: Iterable[Envelope], *, at_once: int = 5000) -> AsyncIterator[list[Pushed]]:
        """As `push_many`, with the answers in parts: to show progress, and for more jobs than memory holds."""
        line = iter(jobs)
        while part := list(islice(line, at_once)):
            answers = await self.push_all(part)
            for answer in answers:
                if isinstance(answer, BaseException):
                    raise answer
            yield [answer for answer in answers if isinstance(answer, Pushed)]

    async def push_all(self, jobs: Sequence[Envelope]) -> list[Pushed | BaseException]:
        """Push many jobs; for each its answer, or the error of the call that it was part of.

        Raises:
            PayloadError: a field that the queue cannot take; nothing is sent.
        """
        for job in jobs:
            check(job)
        parts = self._pusher.push_all(jobs)
        answers = await asyncio.gather(*[future for _, future in parts], return_exceptions=True)
        found: list[Pushed | BaseException] = []
        for (part, _), answer in zip(parts, answers, strict=True):
            found += [answer] * len(part) if isinstance(answer, BaseException) else answer
        return found

    # -- workers ---------------------------------------------------------------------------------------------

    async def step(self, worker: str, done: Sequence[Done], want: int, free: int | None = None) -> Step:
        """Hand in ended jobs and claim further ones, in one call. One step of a worker at a time.

        Args:
            worker: the worker's id, another one for each start of it; no `;`, no space.
            done: completions, at most some hundred.
            want: jobs to claim at most.
            free: how many of them can begin at once; None: all. While jobs with a tenant are in line, no more are
                claimed: whose turn it is shows when there is a place.

        Raises:
            GravitoError: the server could not be reached in time, or refused. Hand the completions in again with the
                next step: it repeats this one, so none is lost, none refused for that, and no claimed job forgotten.
        """
        return await self._steps.step(worker, done, want, want if free is None else free)

    async def keep(self, worker: str, running: Sequence[Claimed]) -> Kept:
        """Renew the leases of running jobs and do the queue's housekeeping; about once a second, busy or idle.

        Args:
            worker: the worker's id.
            running: all jobs that it has, also those that it has not begun.
        """
        turn = self._kept[worker] = self._kept.get(worker, -1) + 1
        rest = self.retention
        prune = (rest.done_ms, rest.dead_ms, rest.dead) if turn % _PRUNE_EVERY == 0 else None
        ids, fences = [job.id for job in running], [job.fence for job in running]
        args = (worker, self.lease_ms, ids, fences, _CRASHES, turn % _SWEEP_EVERY == 0, prune)
        now, due, lost, cancel, outbox, buried = await self._caller.run("keep", args)
        if outbox:
            self._relay.start()
        if prune is not None:
            await self.roll()
        return Kept(now, None if due < 0 else due, _texts(lost), _texts(cancel), outbox, _texts(buried))

    async def wait(self, timeout: float) -> bool:
        """Wait for something to claim; True if there may be. https://redis.io/commands/blpop

        Args:
            timeout: seconds. Whoever cancels the wait may take a token with it; housekeeping puts another.
        """
        return await self.client.blpop([self.keys.wake], timeout) is not None

    async def claim_on_wake(self, worker: str, want: int, timeout: float) -> Step:
        """Wait for something to claim, and claim it in the same exchange. One at a time of a worker; steps may go on.

        Args:
            worker: as in `step`.
            want: jobs to claim at most.
            timeout: seconds; then what is there is claimed, usually nothing.

        Raises:
            GravitoError: it may have claimed all the same: call `settle`, also when this was cancelled.
        """
        return await self._steps.claim_on_wake(worker, want, timeout)

    async def settle(self, worker: str, patience: float | None = None) -> Step | None:
        """What `claim_on_wake` has claimed before it was given up; if it comes later still, it claims nothing.

        Args:
            worker: as in `step`.
            patience: seconds, in place of the queue's.

        Returns:
            None if none was given up.

        Raises:
            GravitoError: the server could not be reached in time; call it again.
        """
        return await self._steps.settle(worker, patience)

    async def leave(self, worker: str) -> None:
        """A worker ends: nothing of its own stays on the server. Jobs that it has not released come back later."""
        names = self._steps.forget(worker)
        self._kept.pop(worker, None)
        await self._caller.run("leave", (names, []))

    def on_note(self, take: Note) -> None:
        """Who takes the notes that completions leave in the outbox."""
        self._relay.on_note = take

    async def relay(self) -> int:
        """Carry the outbox on now; how many entries arrived. Steps and housekeeping see to it by themselves."""
        return await self._relay.carry()

    # -- jobs ------------------------------------------------------------------------------------------------

    def look(self, job_id: str) -> Awaitable[Look]:
        """Where a job is; all looks of a loop turn travel together."""
        return self._looks.ask(job_id)

    async def result(self, job_id: str, timeout: float | None = None) -> Look:
        """Wait until a job has ended, and look at it. Its state is unknown if nothing of it is kept.

        Args:
            timeout: seconds; None for as long as it takes.

        Raises:
            ResultTimeoutError: it has not ended in time.
        """
        try:
            async with asyncio.timeout(timeout):
                state = await self._endings.wait(job_id)
                look = await self.look(job_id)
        except TimeoutError as error:
            if isinstance(error, errors.TimeoutError):
                raise
            late = errors.ResultTimeoutError(f"job {job_id} has not ended within {timeout:g} s")
            late.job_id = job_id
            raise late from None
        if look.state == "unknown" and state in ("ok", "cancelled"):
            return Look(job_id, "ok" if state == "ok" else "cancelled")
        return look

    async def cancel(self, ids: Iterable[str], records: Mapping[str, bytes] | None = None) -> dict[str, str]:
        """Cancel jobs.

        Args:
            ids: of jobs.
            records: what to keep as the result of those that end by this, by id.

        Returns:
            By id: cancelled; running, which was asked to end; dead, ended or unknown, which stay as they are.
        """
        states: dict[str, str] = {}
        line = iter(ids)
        while part := list(islice(line, _AT_ONCE)):
            kept = {job_id: raw(records[job_id]) for job_id in part if records and job_id in records}
            _, answers = await self._caller.run("cancel", (part, kept, self.retention.done))
            states.update(zip(part, _texts(answers), strict=True))
        return states

    async def retry(self, ids: Iterable[str] | None = None) -> tuple[list[str], list[str]]:
        """Bring dead jobs back to their lines, all of them without `ids`.

        Returns:
            Ids of the jobs that are back, and of those that stay because another job has their unique key.
        """
        back: list[str] = []
        held: list[str] = []
        line = None if ids is None else iter(ids)
        while (part := None if line is None else list(islice(line, _AT_ONCE))) is None or part:
            _, some, others, _left = await self._caller.run("retry", (part, _AT_ONCE, len(held)))
            back += _texts(some)
            held += _texts(others)
            if part is None and not some and not others:
                break
        return back, held

    async def discard(self, ids: Iterable[str]) -> list[str]:
        """Forget jobs that are dead or have ended; the ids of those."""
        line, gone = iter(ids), []
        while part := list(islice(line, _AT_ONCE)):
            gone += _texts((await self._caller.run("discard", (part,)))[1])
        return gone

    async def promote(self, ids: Iterable[str]) -> list[str]:
        """Let delayed jobs run now; the ids of those that were delayed."""
        line, ready = iter(ids), []
        while part := list(islice(line, _AT_ONCE)):
            ready += _texts((await self._caller.run("promote", (part,)))[1])
        return ready

    # -- the queue -------------------------------------------------------------------------------------------

    async def purging(self, part: Part) -> AsyncIterator[tuple[int, int]]:
        """Forget all jobs of a part of the queue, some at a time; running jobs stay.

        Returns:
            After each call, how many were forgotten by it and how many are left.
        """
        while True:
            _, count, left = await self._caller.run("purge", (part, _AT_ONCE))
            yield count, left
            if not count or not left:
                return

    async def purge(self, part: Part) -> int:
        """As `purging`, to the end; how many jobs were forgotten."""
        return sum([count async for count, _ in self.purging(part)])

    async def pause(self) -> None:
        """No worker claims jobs of this queue until `resume`; running ones go on."""
        await self._caller.run("conf", ("paused", "1"))

    async def resume(self) -> None:
        """Let workers claim again."""
        await self._caller.run("conf", ("paused", False))

    async def travel(self, ms: int) -> int | None:
        """Move the queue on in time, for tests; when the next delayed job is due then."""
        _, due = await self._caller.run("travel", (ms,))
        return None if due < 0 else int(due)

    async def sizes(self) -> Sizes:
        """How many jobs are where."""
        return _sizes(await self._caller.run("sizes", (False,)))

    async def standing(self) -> tuple[Sizes, list[bytes]]:
        """The same, and the bodies of the jobs that are first in their lines."""
        reply = await self._caller.run("sizes", (True,))
        return _sizes(reply), reply[-1]

    async def roll(self) -> int | None:
        """Close the minutes that are over; some hours at once, so that a queue that was left alone catches up.

        Returns:
            The last minute since the epoch that is closed; None if the queue has never counted anything.
        """
        return await self.counts.close()

    async def aclose(self) -> None:
        """Wait for the pushes on their way, and leave nothing of this producer on the server."""
        await self._pusher.drain()
        await self._relay.drain()
        await self._endings.aclose()
        if clients := self._pusher.clients():
            with suppress(errors.GravitoError):  # what stays is dropped by its age
                await self._caller.run("leave", ([], clients), patience=0.0)

    # -- parts -----------------------------------------------------------------------------------------------

    def _other(self, queue: str) -> Caller:
        return Caller(self.client, Keys(queue, self._prefix, self.client.settings.key_prefix), self._patience)

    async def _look_at(self, ids: list[str]) -> list[Look]:
        _, found = await self._caller.run("look", (ids,))
        return [_look(job_id, *parts) for job_id, parts in zip(ids, found, strict=True)]


def _sizes(reply: list[Any]) -> Sizes:
    _, ready, fair, delayed, running, parked, done, dead, outbox, paused, flat, _ = reply
    totals = {name.decode(): int(count) for name, count in zip(flat[::2], flat[1::2], strict=True)}
    return Sizes(tuple(ready), fair, delayed, running, parked, done, dead, outbox, paused == b"1", totals)


def _look(job_id: str, state: bytes, body: bytes, record: bytes, tries: bytes, *rest: bytes) -> Look:
    ended = state in (b"ok", b"cancelled", b"unknown")
    failed, crashes = tries.split(b":")[:2] if tries else (0, 0)
    due, worker = rest
    return Look(
        job_id,
        state.decode(),  # type: ignore[arg-type]  # the script names the states that the type has
        None if ended else body,
        record or None,
        int(failed),
        int(crashes),
        int(float(due)) if due else None,
        worker.decode() or None,
    )


def _texts(values: Iterable[Any]) -> list[str]:
    return [value.decode() for value in values]
