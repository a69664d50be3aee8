"""Several worker processes under one parent: started, restarted, balanced between queues, and ended in order."""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from gravito.errors import ConfigurationError
from gravito.horizon._balance import Load, balance, step_towards

__all__ = ["Supervisor"]

_log = logging.getLogger("gravito.horizon")

_SOON = 5.0  # seconds; a process that ends earlier than this counts as one that cannot start
_LONGEST = 30.0  # seconds between two tries at most
RETIRED = 76  # exit status of a worker that was told to end for good
MISCONFIGURED = 78  # exit status of a worker that cannot work as things are set: EX_CONFIG of sysexits.h
RECYCLE = 75  # exit status of a worker that wants to be replaced: it has done its share, or grown too large


@dataclass(slots=True, eq=False)
class _Child:
    process: asyncio.subprocess.Process
    queues: tuple[str, ...]
    since: float = field(default_factory=time.monotonic)
    leaving: bool = False  # told to end; its end asks for no restart


class Supervisor:
    """Runs worker processes until it is told to stop.

    Args:
        command: makes the command line of a worker for some queues.
        queues: all queues, in the order of their rank.
        processes: how many workers.
        grace: seconds that a worker gets to finish its jobs; then it is killed, and its leases run out.
        loads: what each queue has to do now; given, each worker serves one queue and they are moved to where the
            most work waits. None: every worker serves all queues.
        at_least: processes that each queue keeps when they are balanced.
        every: seconds between two looks at the loads.
        until_done: a worker that ends in order is not replaced; `run` returns when all have.
    """

    def __init__(
        self,
        command: Callable[[Sequence[str]], list[str]],
        queues: Sequence[str],
        processes: int,
        *,
        grace: float = 30.0,
        loads: Callable[[], Awaitable[Mapping[str, Load]]] | None = None,
        at_least: int = 1,
        every: float = 3.0,
        until_done: bool = False,
    ) -> None:
        self._command = command
        self._queues = tuple(queues)
        self._processes = processes
        self._grace = grace
        self._loads = loads
        self._at_least = at_least
        self._every = every
        self._until_done = until_done
        self._children: set[_Child] = set()
        self._tasks: set[asyncio.Task[None]] = set()  # one for each child: waits for its end
        self._stopping = asyncio.Event()
        self._failures = 0  # ends in a row that came too soon
        self._refused: int | None = None  # process id of the worker for whose sake all this ended
        self.restarts = 0
        self.patient = False  # workers that refuse their configuration are tried again: it is about to change

    def __repr__(self) -> str:
        return f"<Supervisor {len(self._children)} of {self._processes} processes, {self.restarts} restarts>"

    @property
    def pids(self) -> list[int]:
        """Process ids of the workers that run."""
        return [child.process.pid for child in self._children]

    def stop(self) -> None:
        """Ask all workers to finish what they do and end; `run` returns when they have."""
        self._stopping.set()

    async def restart(self) -> None:
        """Replace every worker by a new one, as after a change of the code; each finishes what it does first."""
        for child in list(self._children):
            await self._start(child.queues)
            self._end(child)

    async def run(self) -> None:
        """Start the workers and keep them running until `stop`.

        Raises:
            ConfigurationError: they cannot work as things are set; each has told why. A supervisor of which some
                worker has got further goes on, and tries again now and then.
        """
        try:
            for queues in self._first():
                await self._start(queues)
            while not self._stopping.is_set():
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._stopping.wait(), self._every)
                if self._loads is not None and not self._stopping.is_set():
                    await self._move(self._loads)
        finally:
            await self._end_all()
        if self._refused is not None:
            raise ConfigurationError(
                f"worker {self._refused} cannot work as things are set: it has said why above, and every other one would"
                " say the same",
                field="worker",
            )

    def _first(self) -> list[tuple[str, ...]]:
        if self._loads is None:
            return [self._queues] * self._processes
        shares = balance(dict.fromkeys(self._queues, Load(0, 0)), self._processes, at_least=self._at_least)
        return [(queue,) for queue, count in shares.items() for _ in range(count)]

    async def _start(self, queues: tuple[str, ...]) -> None:
        # A group of its own: a terminal's ctrl-c reaches the supervisor alone, which then asks each worker once.
        process = await asyncio.create_subprocess_exec(*self._command(queues), start_new_session=True)
        child = _Child(process, queues)
        self._children.add(child)
        task = asyncio.create_task(self._mind(child), name=f"worker {process.pid}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _mind(self, child: _Child) -> None:
        status = await child.process.wait()
        self._children.discard(child)
        if child.leaving or self._stopping.is_set():
            return
        if status == RETIRED or (self._until_done and status == 0):
            self._processes = max(self._at_least * len(self._queues), self._processes - 1)
            if not self._children:
                self._stopping.set()
            return
        if status == MISCONFIGURED and not self.patient and not self._works():
            self._refused = child.process.pid
            self._stopping.set()
            return
        self.restarts += 1
        if status == RECYCLE:
            self._failures = 0
        else:
            self._failures = self._failures + 1 if time.monotonic() - child.since < _SOON else 1
            pause = min(0.1 * 2 ** (self._failures - 1), _LONGEST)
            _log.warning(
                "worker %d ended with %s; a new one starts in %.1f s", child.process.pid, _how(status), pause
            )
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), pause)
        if not self._stopping.is_set():
            await self._start(child.queues)

    def _works(self) -> bool:
        """Whether some worker got further than its start."""
        return any(time.monotonic() - child.since >= _SOON for child in self._children)

    async def _move(self, loads: Callable[[], Awaitable[Mapping[str, Load]]]) -> None:
        try:
            wanted = balance(await loads(), self._processes, at_least=self._at_least)
        except Exception as error:  # the server is away; the workers wait for it as well
            _log.warning("queues cannot be balanced now: %s", error)
            return
        now = dict.fromkeys(wanted, 0)
        for child in self._children:
            if not child.leaving:
                now[child.queues[0]] = now.get(child.queues[0], 0) + 1
        following = step_towards(now, wanted)
        for queue in now:
            if following.get(queue, 0) < now[queue]:
                self._end(
                    next(child for child in self._children if child.queues == (queue,) and not child.leaving)
                )
        for queue, count in following.items():
            if count > now[queue]:
                await self._start((queue,))

    def _end(self, child: _Child) -> None:
        child.leaving = True
        task = asyncio.create_task(self._dismiss(child))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _dismiss(self, child: _Child) -> None:
        with suppress(ProcessLookupError):
            child.process.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(child.process.wait(), self._grace + 2)
        except TimeoutError:
            _log.warning("worker %d did not end within %.0f s and is killed", child.process.pid, self._grace)
            with suppress(ProcessLookupError):
                child.process.kill()
            await child.process.wait()

    async def _end_all(self) -> None:
        self._stopping.set()
        for child in list(self._children):
            if not child.leaving:
                self._end(child)
        while self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)


def _how(status: int) -> str:
    return signal.Signals(-status).name if status < 0 else f"exit status {status}"
