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

__all__ = ["Processes", "ResultLostError"]

# A new interpreter: the worker has threads and an event loop, which a fork would copy half.
_SPAWN = multiprocessing.get_context("spawn")


class ResultLostError(errors.PayloadError):
    """The function did its work, and what it returned cannot be had in another process."""


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
        self,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        name: str = "",
        *,
        wanted: bool = True,
    ) -> Any:
        """The function's result, from a process. When this call is cancelled, the process is killed.

        Args:
            function: of a module, so that the process can import it.
            args: its own.
            kwargs: its own.
            name: what errors call it; the function's own name by default.
            wanted: without it the result stays where it is, and this gives None.

        Raises:
            ProcessDiedError: the process ended without an answer.
            ResultLostError: the result cannot be pickled, or cannot be read here.
            Exception: whatever the function raised; its traceback in the process is in `__notes__`.
        """
        async with self._room:
            slot = self._idle.pop() if self._idle else self._start()
            loop = asyncio.get_running_loop()
            try:
                name = name or _name(function)
                work = (function, args, kwargs, wanted)
                ok, value = await loop.run_in_executor(self._threads, slot.call, work, name)
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

    def call(self, work: tuple[Any, ...], name: str) -> tuple[bool, Any]:
        """Runs in a thread: `(True, result)` or `(False, error)`."""
        try:
            self._pipe.send(work)
            kind, data = self._pipe.recv()
        except (EOFError, OSError) as error:
            self._process.join(1)
            raise errors.ProcessDiedError(
                f"the process of {name} ended ({_how(self._process.exitcode)}) before it answered"
            ) from error
        try:
            if kind != "lost":
                return kind == "result", ForkingPickler.loads(data)
        except Exception as error:  # its module cannot be imported here
            if kind == "error":
                return False, error
            data = f"it cannot be read here ({type(error).__name__}: {error})"
        return False, ResultLostError(
            f"the result of {name}: {data}; return what it is made of, or set results=False"
        )

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
            function, args, kwargs, wanted = pipe.recv()
        except EOFError:
            return
        except Exception as error:  # what was sent cannot be read here, as a function that is not importable
            pipe.send(("error", _portable(error)))
            continue
        try:
            result = function(*args, **kwargs)
        except Exception as error:
            pipe.send(("error", _portable(error)))
            continue
        try:
            answer: tuple[str, bytes | str] = ("result", _dumps(result if wanted else None))
        except Exception as error:  # pickle's, or the user's own type's
            answer = "lost", f"a {type(result).__name__} cannot be encoded ({error})"
        pipe.send(answer)


def _portable(error: Exception) -> bytes:
    """A pickle of the error, with its traceback as a note, that the worker can read.

    Pickle makes an error anew by calling its class with its `args`, which many constructors do not take, or take for
    something else. Such a one is put together from its parts instead, so that `retry_on` still knows it.
    """
    error.add_note(f"in the job's process:\n{''.join(traceback.format_exception(error))}")
    kind, text = type(error), _text(error)
    with contextlib.suppress(Exception):
        data = _dumps(error)
        back = ForkingPickler.loads(data)
        if type(back) is kind and str(back) == text:
            return data
    args = error.args if _travels(error.args) else (text,)
    state = {name: value for name, value in vars(error).items() if _travels(value)}
    for base in kind.__mro__:  # a class that the worker cannot import has one above it that it can
        with contextlib.suppress(Exception):
            data = _dumps(_Parts(base, kind.__module__, kind.__qualname__, args, state))
            if isinstance(ForkingPickler.loads(data), Exception):
                return data
    return _dumps(RuntimeError(f"{kind.__qualname__}: {text}"))


class _Parts:
    """An error that is put together where it is unpickled."""

    def __init__(self, *parts: Any) -> None:
        self._parts = parts

    def __reduce__(self) -> tuple[Any, ...]:
        return _put_together, self._parts


def _put_together(
    base: type[Exception], module: str, qualname: str, args: tuple[Any, ...], state: dict[str, Any]
) -> Exception:
    kind = base
    if (base.__module__, base.__qualname__) != (module, qualname):
        own = {"__module__": module, "__qualname__": qualname}
        kind = type(qualname.rpartition(".")[2], (base,), own)
    error = kind.__new__(kind, *args)
    error.args = args
    vars(error).update(state)
    return error


def _travels(value: Any) -> bool:
    with contextlib.suppress(Exception):
        ForkingPickler.loads(_dumps(value))
        return True
    return False


def _dumps(value: Any) -> bytes:
    return bytes(ForkingPickler.dumps(value))


def _text(error: Exception) -> str:
    try:
        return str(error)
    except Exception:  # the user's own code
        return "(its text cannot be had)"


def _name(function: Callable[..., Any]) -> str:
    return getattr(function, "__qualname__", repr(function))


def _how(code: int | None) -> str:
    if code is None:
        return "it hangs"
    return signal.Signals(-code).name if code < 0 else f"exit status {code}"
