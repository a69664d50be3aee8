"""From a claimed body to a call, and from what came of the call to the completion that is handed in. No I/O.

How a worker uses it, for one queue::

    runner = Runner(horizon, queue, worker_id, broker.now_ms)
    job = runner.open(claimed)                # never raises: what cannot be run is `job.broken`, and dies in `run`
    task = create_task(runner.run(job, lane))  # a task of its own for each job, since it sets context variables
    ...
    runner.stop(job, "timeout"); task.cancel()  # job.definition.options.timeout seconds have passed
    runner.stop(job, "cancel"); task.cancel()   # Kept.cancel names it
    runner.stop(job, "shutdown"); task.cancel() # the grace time is over: released, no attempt charged
    runner.stop(job, "lost"); task.cancel()     # Kept.lost names it: its completion would be refused, drop it
    ...
    done = task.result()                      # whatever happened to the job: a Done for the next step, or a Well that makes it
    ...
    await runner.aclose()                     # behind the last run

`job.definition.kind` says where it runs: "async" on the loop, by `run` itself; "thread" and "process" through
`lane(job, function, args, kwargs)`, an async function of the worker that runs `function(*args, **kwargs)` there and
gives its result or raises what it raised. A thread needs a copy of the context (`contextvars.copy_context().run`, as
`asyncio.to_thread` does); for a process all three can be pickled. When `run` is cancelled, the lane is: it then kills
the process, or leaves the thread alone, which goes on running with nobody listening.

What becomes of a run is decided by `decide`, a pure function:

| the run | outcome | attempt counted |
| --- | --- | --- |
| returned | ok | |
| returned what cannot be encoded, or is too large | dead | |
| raised one of `discard_on`; was stopped by "cancel" | cancelled | |
| raised one of `retry_on`, or took too long, with attempts left | retry after the backoff | yes |
| the same with none left; raised anything else | dead | |
| `current_job().release()`; was stopped by "shutdown" | release | no |
| body, name, arguments or injections unusable | dead | |

Only an accepted completion has effects: its pushes and its note travel in the `Done`, and the server drops them
together with a completion whose fence is not the latest.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import msgspec

from gravito.errors import (
    HorizonError,
    JobCancelledError,
    JobTimeoutError,
    PayloadError,
    ProcessDiedError,
)
from gravito.horizon import _arguments, _backoff, _payload
from gravito.horizon._current import running
from gravito.horizon._failed import tell_instance
from gravito.horizon._logs import escaped
from gravito.horizon._messages import Claimed, Done, Outcome
from gravito.horizon._outcome import failure_of, note_of, pack_result, trail_of, waited
from gravito.horizon._payload import (
    FORMAT,
    NIL,
    Attempt,
    Body,
    End,
    Record,
    Travel,
    add_attempt,
)
from gravito.horizon._progress import Teller
from gravito.horizon.context import JobContext, Signal, Stop
from gravito.horizon.middleware import tell, tell_after

if TYPE_CHECKING:
    from gravito.horizon.horizon import Horizon
    from gravito.horizon.job import Definition
    from gravito.horizon.options import Options

__all__ = ["Lane", "Runner", "Verdict", "Well", "decide"]

log = logging.getLogger("gravito.horizon")

Lane = Callable[[JobContext, Callable[..., Any], tuple[Any, ...], dict[str, Any]], Awaitable[Any]]


class Verdict(msgspec.Struct, frozen=True):
    """What becomes of a run that did not return."""

    outcome: Outcome
    state: str  # for the record: retry, release, dead, cancelled, discarded
    error: BaseException
    delay: int = 0  # ms


def decide(error: BaseException, attempt: int, options: Options, stopped: Stop | None = None) -> Verdict:
    """Judge a run that raised. Pure, but for the backoff's jitter.

    Args:
        error: what it raised.
        attempt: 1 for the first.
        options: the job's.
        stopped: why the worker cancelled it, if it did.
    """
    wait: float | None = None
    retried = isinstance(error, options.retry_on)
    if isinstance(error, Signal):
        if error.wish == "release":
            return Verdict("release", "release", error, max(0, round(error.delay * 1000)))
        wait = error.delay if error.delay >= 0 else None
        retried = error.wish == "retry"
        error = HorizonError(error.reason or f"the job asked for it: {error.wish}")
    elif isinstance(error, asyncio.CancelledError):
        if stopped in ("shutdown", "lost"):
            return Verdict("release", "release", error)
        if stopped == "cancel":
            return Verdict("cancelled", "cancelled", JobCancelledError("cancelled while it ran"))
        retried = True
        if stopped == "timeout":
            error = JobTimeoutError(f"it ran longer than its timeout of {options.timeout:g} seconds")
    elif isinstance(error, options.discard_on):
        return Verdict("cancelled", "discarded", error)
    if not retried or attempt > options.retries:
        return Verdict("dead", "dead", error)
    try:
        delay = max(0, round(wait * 1000)) if wait is not None else _backoff.wait_ms(options.backoff, attempt)
    except Exception as wrong:  # a user's function; without it there is no next attempt
        wrong.__context__ = error
        return Verdict("dead", "dead", wrong)
    return Verdict("retry", "retry", error, delay)


class Well(msgspec.Struct, gc=False):
    """A run that went well. The completion is made when it is handed in, so that in a place that came free the next job
    begins first."""

    runner: Runner
    job: JobContext
    packed: msgspec.Raw  # the result
    ended: float  # epoch ms

    def done(self) -> Done:
        """The completion."""
        return self.runner.completion(self.job, self.packed, self.ended)


class Runner:
    """Opens and runs the jobs of one queue, for one worker.

    Args:
        horizon: started, so that its providers are there.
        queue: where the jobs come from.
        worker: the worker's id, for the records.
        clock: epoch ms of the server's clock.
    """

    def __init__(
        self,
        horizon: Horizon,
        queue: str,
        worker: str,
        clock: Callable[[], float],
    ) -> None:
        self._horizon = horizon
        self._queue = queue
        self._worker = worker
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._teller = Teller(horizon.broker(queue))
        self._hooks = horizon.hooks
        self._keeps = horizon.settings.keep.done > 0  # jobs that did not fail
        self._definitions: dict[str, Definition] = {}  # used so far

    def __repr__(self) -> str:
        return f"<Runner of {self._queue} in {self._worker}>"

    async def aclose(self) -> None:
        """Send what jobs told last. Call it behind the last run."""
        await self._teller.drain()

    def open(self, claimed: Claimed) -> JobContext:
        """Find the job of a body and decode its arguments."""
        job = JobContext(
            self._horizon, self._queue, claimed.id, claimed.fence, claimed.attempt, claimed.crashes
        )
        job.raw = claimed.body
        if claimed.note is not None:
            job.trail = trail_of(claimed.note)
        job._tell, job._loop = self._teller.tell, self._loop
        try:
            body = job.body = _payload.read_body(claimed.body)
            definition = self._definitions.get(body.name)
            if definition is None:
                definition = self._definitions[body.name] = self._horizon.find(body.name)
            job.definition = definition
            if body.version == definition.options.version and (body.extra is None or not body.extra.sealed):
                job.args, job.kwargs = definition.arguments.decode(body.args)
            else:
                job.args, job.kwargs = self._decode_other(definition, body, job.id)
            if definition.injected:
                self._horizon.injection(definition, job)
        except (Exception, SystemExit) as error:  # it will not get better: kept among the dead, with this
            job.broken = error
        return job

    def stop(self, job: JobContext, why: Stop) -> None:
        """Note why the job's task is about to be cancelled; the first reason counts."""
        job.stopped = job.stopped or why

    async def run(self, job: JobContext, lane: Lane | None = None) -> Done | Well:
        """Run it, with hooks and middleware, and say what came of it.

        Args:
            job: from `open`.
            lane: runs what does not run on the event loop.
        """
        running.set(job)
        job.started = self._clock()
        hooks = self._hooks
        try:
            if job.body.extra is not None:
                self._restore(job, job.body.extra)
            if job.broken is not None:
                raise job.broken
            if hooks.started:
                await tell(hooks.started, job)
            if hooks.around:
                result = await hooks.wrap(job, functools.partial(self._call, job, lane))
            else:
                result = await self._call(job, lane)
        except BaseException as error:  # also of those that a job must not end its worker with
            return await self._failed(job, error)
        ended, definition = self._clock(), job.definition
        packed = NIL
        if result is not None and definition is not None and definition.options.results:
            try:
                packed = pack_result(job, definition, result)
            except PayloadError as error:
                job.broken = error  # it has done its work: another attempt would do it twice
                return await self._failed(job, error)
        if hooks.succeeded:
            await tell_after(hooks.succeeded, job, result)
        return Well(self, job, packed, ended)

    def _restore(self, job: JobContext, extra: _payload.Extra) -> None:
        """Put back what was carried along; also for a job that cannot be run, so that its trace ends with that."""
        try:
            self._horizon.carry.restore(extra)
        except Exception:
            if job.broken is None:
                raise

    def _call(self, job: JobContext, lane: Lane | None) -> Awaitable[Any]:
        definition = job.definition
        assert definition is not None
        if definition.kind == "process":
            function, args, kwargs = definition.portable(job.args, job.kwargs)
        else:
            injected = self._horizon.injection(definition, job) if definition.injected else {}
            function, args, kwargs, job.instance = definition.bind(job.args, job.kwargs, injected)
        if definition.kind == "async":
            awaitable: Awaitable[Any] = function(*args, **kwargs)
            return awaitable
        if lane is None:
            raise HorizonError(f"this worker has no {definition.kind} to run {definition.name!r} in")
        return lane(job, function, args, dict(kwargs))

    def _decode_other(
        self, definition: Definition, body: Body, job_id: str
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Arguments that are encrypted, or of another version than the code's."""
        data = self._horizon.vault.arguments(body, job_id)
        options = definition.options
        if body.version > options.version:
            raise PayloadError(
                f"job {body.name!r}: its arguments are of version {body.version}, this worker's code knows "
                f"{options.version}; update it, then retry the job"
            )
        if body.version < options.version:
            if options.upgrade is None:
                raise PayloadError(
                    f"job {body.name!r}: its arguments are of version {body.version}, the code's are of "
                    f"{options.version}, and it has no `upgrade`"
                )
            data = _arguments.encode(options.upgrade(body.version, msgspec.msgpack.decode(data)))
        return definition.arguments.decode(data)

    # -- how it ended ----------------------------------------------------------------------------------------

    def broken_off(self, job: JobContext, error: BaseException) -> Done:
        """What is handed in where the end itself went wrong: dead, since it would go wrong each time."""
        ended = self._clock()
        failure = failure_of(job, error)
        end = End("dead", job.attempt, int(job.started), int(ended), self._worker, failure)
        return self._done(job, "dead", end, ended)

    def completion(self, job: JobContext, packed: msgspec.Raw, ended: float) -> Done:
        """What is handed in for a run that went well; see `Well`."""
        kept = job.definition is not None and job.definition.options.results
        end = End("ok", job.attempt, int(job.started), int(ended), self._worker, None, kept, packed)
        return self._done(job, "ok", end, ended)

    async def _failed(self, job: JobContext, error: BaseException) -> Done:
        ended = self._clock()
        options = job.definition.options if job.definition is not None else None
        if options is None or job.broken is not None:
            verdict = Verdict("dead", "dead", error)
        else:
            verdict = decide(error, job.attempt, options, job.stopped)
        await self._tell(job, verdict)
        if verdict.outcome == "release":
            return self._done(job, "release", None, ended, delay=verdict.delay)
        failure = failure_of(job, verdict.error)
        started, now = int(job.started), int(ended)
        if verdict.outcome == "retry":
            attempt = Attempt(job.attempt, started, now, self._worker, "retry", failure, verdict.delay)
            record = _payload.encode(Record(FORMAT, add_attempt(job.trail, attempt)))
            return self._done(job, "retry", None, ended, record=record, delay=verdict.delay)
        end = End(verdict.state, job.attempt, started, now, self._worker, failure)
        return self._done(job, verdict.outcome, end, ended)

    def _done(
        self,
        job: JobContext,
        outcome: Outcome,
        end: End | None,
        ended: float,
        *,
        record: bytes | None = None,
        delay: int = 0,
    ) -> Done:
        body = job.body
        if end is not None:
            if job.progressed is not None:
                self._teller.forget(job)
            # a dead job keeps its body; of others the record is all that stays, if anything does
            if outcome == "dead":
                record = _payload.encode(Record(FORMAT, job.trail, end))
            elif self._keeps:
                record = _payload.encode(Record(FORMAT, job.trail, end, msgspec.Raw(job.raw)))
        pushes: tuple[Travel, ...] = tuple(job.pushes) if job.pushes and outcome == "ok" else ()
        note = None
        if body.extra is not None and end is not None:
            pushes += self._followers(body.extra, outcome)
            note = note_of(job, end)
        return Done(
            id=job.id,
            fence=job.fence,
            outcome=outcome,
            record=record,
            delay=delay,
            name=body.name,
            run_ms=ended - job.started,
            wait_ms=waited(job),
            pushes=pushes,
            note=note,
            cause=f"{body.name}|{end.error.type[:200]}" if outcome == "dead" and end and end.error else "",
        )

    async def mourn(self, dead: Claimed) -> tuple[Travel, ...]:
        """Tell of a job that was given up since its workers died; what is to be pushed for that."""
        job = self.open(dead)
        error = ProcessDiedError(f"its worker died {dead.crashes} times while it ran")
        running.set(job)
        await self._tell(job, Verdict("dead", "dead", error))
        return self._followers(job.body.extra, "dead") if job.body.extra is not None else ()

    def _followers(self, extra: _payload.Extra, outcome: Outcome) -> tuple[Travel, ...]:
        follower = extra.then if outcome == "ok" else extra.catch if outcome == "dead" else None
        return (_payload.depart(follower, int(self._clock())),) if follower is not None else ()

    async def _tell(self, job: JobContext, verdict: Verdict) -> None:
        hooks, outcome, error = self._hooks, verdict.outcome, verdict.error
        if outcome == "retry":
            await tell_after(hooks.retried, job, error, verdict.delay / 1000)
        elif outcome == "release":
            await tell_after(hooks.released, job, verdict.delay / 1000)
        elif outcome == "cancelled":
            await tell_after(hooks.cancelled, job, error)
        elif outcome == "dead":
            failure = failure_of(job, error)  # its words: those of an encrypted job stay out of the log
            said = escaped(failure.message)  # for handlers of the application's own
            log.error("job %s %s is dead: %s: %s", escaped(job.name), job.id, failure.type, said)
            await tell_instance(job, error)
            await tell_after(hooks.died, job, error)
