"""Processes for jobs that need a core to themselves: one job at a time each, ended for real when it must stop.

`concurrent.futures` cannot end one job of its pool without breaking the pool; this is what is missing there.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import signal
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from multiprocessing.reduction import ForkingPickler
from typing import Any

from gravito import errors

# A new interpreter: the worker has threads and an event loop, which a fork would copy half.
_SPAWN = multiprocessing.get_context("spawn")


class Processes:
    """A bounded set of processes, started when first needed and kept for the next job.

    Args:
        size: how many may run at the same time; None for as many as there are cores.
    """

    def __init__(self, size: int | None = None) -> None:
        self.size = size or os.cpu_count() or 1
        self._room = asyncio.Semaphore(self.size)
        self._idle: list[_Slot] = []  # warm ones
        self._all: set[_Slot] = set()  # to be ended with the worker
        self._threads = ThreadPoolExecutor(self.size, thread_name_prefix="gravito-process")

    def __repr__(self) -> str:
        return f"<Processes {len(self._all)} of {self.size}, {len(self._idle)} idle>"

    async def run(
        self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], name: str = ""
    ) -> Any:
        """The function's result, from a process. When this call is cancelled, the process is killed.

        Args:
            function: of a module, so that the process can import it.
            args: its own.
            kwargs: its own.
            name: what errors call it; the function's own name by default.

        Raises:
            ProcessDiedError: the process ended without an answer.
            Exception: whatever the function raised; its traceback in the process is in `__notes__`.
        """
        async with self._room:
            slot = self._idle.pop() if self._idle else self._start()
            loop = asyncio.get_running_loop()
            try:
                ok, value = await loop.run_in_executor(self._threads, slot.call, function, args, kwargs, name)
            except BaseException:
                self._end(slot)
                raise
            self._idle.append(slot)
        if ok:
            return value
        raise value

    def close(self) -> None:
        """End all processes; jobs that still run in them are killed."""
        for slot in list(self._all):
            self._end(slot)
        self._threads.shutdown(wait=True)

    def _start(self) -> _Slot:
        slot = _Slot()
        self._all.add(slot)
        return slot

    def _end(self, slot: _Slot) -> None:
        self._all.discard(slot)
        with contextlib.suppress(ValueError):
            self._idle.remove(slot)
        slot.kill()


class _Slot:
    """One process and the pipe to it."""

    def __init__(self) -> None:
        self._pipe, theirs = _SPAWN.Pipe()
        self._process = _SPAWN.Process(target=_serve, args=(theirs,), name="gravito-job", daemon=True)
        self._process.start()
        theirs.close()  # so that its end is seen here

    def call(
        self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], name: str
    ) -> Any:
        """Runs in a thread: `(True, result)` or `(False, error)`."""
        try:
            self._pipe.send((function, args, kwargs))
            return self._pipe.recv()
        except (EOFError, OSError) as error:
            self._process.join(1)
            raise errors.ProcessDiedError(
                f"the process of {name or _name(function)} ended ({_how(self._process.exitcode)}) before it answered"
            ) from error

    def kill(self) -> None:
        self._process.kill()
        self._process.join()
        self._pipe.close()


def _serve(pipe: Connection) -> None:
    """The process: one call after the other, until the worker is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal's ctrl-c the worker decides
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    while True:
        try:
            function, args, kwargs = pipe.recv()
        except EOFError:
            return
        except Exception as error:  # what was sent cannot be read here, as a function that is not importable
            pipe.send((False, _portable(error)))
            continue
        try:
            answer = (True, function(*args, **kwargs))
        except Exception as error:
            answer = (False, _portable(error))
        try:
            pipe.send(answer)
        except (TypeError, ValueError, AttributeError) as error:  # a result that no other process can have
            pipe.send((False, _portable(error)))


def _portable(error: BaseException) -> BaseException:
    """The error with its traceback as a note, in a form that survives the way to the worker."""
    text = "".join(traceback.format_exception(error))
    error.add_note(f"in the job's process:\n{text}")
    try:
        ForkingPickler.loads(ForkingPickler.dumps(error))
    except Exception:
        replacement = RuntimeError(f"{type(error).__qualname__}: {error}")
        replacement.add_note(f"in the job's process:\n{text}")
        return replacement
    return error


def _name(function: Callable[..., Any]) -> str:
    return getattr(function, "__qualname__", repr(function))


def _how(code: int | None) -> str:
    if code is None:
        return "it hangs"
    return signal.Signals(-code).name if code < 0 else f"exit status {code}"
