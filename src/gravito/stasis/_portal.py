"""A way into the cache from code without an event loop: one thread of the process runs a loop for all of it."""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
from collections.abc import Callable, Coroutine
from contextvars import Context, copy_context
from inspect import isawaitable, iscoroutinefunction
from queue import SimpleQueue
from typing import Any, Final, Generic, TypeVar

from gravito import errors
from gravito.stasis._policy import Factory

__all__ = ["Portal", "portal"]

T = TypeVar("T")
_ELSEWHERE: Final = object()  # the caller has left: another thread has to do it


class Portal:
    """A thread with a loop, started by the first call, and once more by a forked child's first call."""

    def __init__(self) -> None:
        self._at_exit = False  # whether the end of the process is taken care of
        self._forget()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._forget)

    def __repr__(self) -> str:
        return f"<Portal {'open' if self._loop is not None else 'closed'}>"

    def _forget(self) -> None:
        """A forked child has neither the thread nor the loop of its parent."""
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None  # None: nobody has called yet
        self._thread: threading.Thread | None = None

    def call(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """What the coroutine returns. Blocks the thread until then; an interrupt cancels it.

        Raises:
            CacheError: called in the portal's own thread, which would wait for itself.
        """
        gate = threading.Lock()
        gate.acquire()
        call = _Call(work, gate.release)
        try:
            self._send(call)  # in here, for an interrupt may come between that and the waiting
            gate.acquire()
            return call.result()
        except BaseException:
            call.cancel()
            raise
        finally:
            self._close_at_exit()

    def call_with(self, factory: Factory, work: Callable[[Factory], Coroutine[Any, Any, T]]) -> T:
        """As `call`, for a coroutine that may need a factory. A plain one runs in this thread while it waits here.

        So it finds what belongs to the thread, a database's transaction for instance, and holds up nobody else.
        What is computed in the background, after the caller has left, runs in a thread of asyncio's pool.
        """
        if not callable(factory) or iscoroutinefunction(factory):
            return self.call(lambda: work(factory))
        errands = _Errands(factory)
        call = _Call(lambda: work(errands.bring), errands.finish)
        try:
            self._send(call)
            errands.run()
            return call.result()
        except BaseException:
            call.cancel()
            raise
        finally:
            errands.leave()
            self._close_at_exit()

    def _close_at_exit(self) -> None:
        """What was registered last ends first: so not before the first call, which may have started an engine."""
        if not self._at_exit:
            self._at_exit = True
            atexit.register(self.close)

    def _send(self, call: _Call[Any]) -> None:
        with self._lock:
            loop = self._loop or self._start()
            if threading.current_thread() is self._thread:
                raise errors.CacheError(
                    "the synchronous face was called in its own event loop and would wait for itself; "
                    "await the cache's own methods there"
                )
            call.send(loop)  # before `close` can stop the loop, so that it is settled

    def _start(self) -> asyncio.AbstractEventLoop:
        loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=_serve, args=(loop,), name="gravito cache portal", daemon=True)
        self._thread.start()
        self._loop = loop  # last: after an interrupt in between nobody waits for a loop that never ran
        return loop

    def close(self) -> None:
        """End the thread and close what it has open. The next call starts anew."""
        with self._lock:
            loop, thread = self._loop, self._thread
            self._loop = self._thread = None
        if loop is not None and thread is not None:
            loop.call_soon_threadsafe(loop.stop)
            thread.join()


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    """Run a loop until it is stopped, then end it as `asyncio.run` does: its connections close with it."""
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.get_loop().run_forever()


class _Call(Generic[T]):
    """One coroutine in the loop, and who waits for it. Leaner than asyncio.run_coroutine_threadsafe.

    Args:
        work: makes the coroutine.
        finished: called in the loop's thread when that is settled.
    """

    def __init__(self, work: Callable[[], Coroutine[Any, Any, T]], finished: Callable[[], None]) -> None:
        self._work = work
        self._finished = finished
        self._loop: asyncio.AbstractEventLoop | None = None  # set by `send`
        self._task: asyncio.Task[T] | None = None  # set by `_start`

    def send(self, loop: asyncio.AbstractEventLoop) -> None:
        """To the portal's loop. The coroutine is made here: wrong arguments are the caller's error."""
        coroutine = self._work()
        self._loop = loop
        loop.call_soon_threadsafe(self._start, coroutine)

    def _start(self, coroutine: Coroutine[Any, Any, T]) -> None:
        self._task = asyncio.get_running_loop().create_task(coroutine)
        self._task.add_done_callback(lambda _: self._finished())

    def result(self) -> T:
        """What came of it, once it is settled.

        Raises:
            CacheError: the portal was closed before.
        """
        assert self._task is not None
        if self._task.cancelled():
            raise errors.CacheError(
                "the synchronous face was closed, or the call cancelled, before it was done"
            )
        return self._task.result()

    def cancel(self) -> None:
        """From any thread: nobody waits for it any more."""
        if self._loop is not None and (self._task is None or not self._task.done()):
            try:
                self._loop.call_soon_threadsafe(lambda: self._task is not None and self._task.cancel())
            except RuntimeError:  # the loop has ended, and the task with it
                pass


class _Errands:
    """What a caller's thread does for the loop while it waits.

    Args:
        factory: a plain one.
    """

    def __init__(self, factory: Factory) -> None:
        self._factory = factory
        self._lock = threading.Lock()
        self._left = False  # nobody runs errands any more
        self._queue: SimpleQueue[tuple[Context, asyncio.Future[Any]] | None] = SimpleQueue()

    async def bring(self) -> Any:
        """In the loop: the factory's result."""
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        with self._lock:
            here = not self._left
            if here:
                # with the run's own context, so that a factory that asks for its own value is found out
                self._queue.put((copy_context(), future))
        result = await future if here else _ELSEWHERE
        if result is _ELSEWHERE:
            result = await asyncio.to_thread(self._factory)
        return await result if isawaitable(result) else result

    def run(self) -> None:
        """In the caller's thread: run the factory whenever it is asked for, until `finish`."""
        while (errand := self._queue.get()) is not None:
            context, future = errand
            try:
                result = context.run(self._factory)
            except Exception as error:
                _tell(future, future.set_exception, error)
            except BaseException:
                _tell(future, future.set_exception, errors.CacheError("the factory was interrupted"))
                raise
            else:
                _tell(future, future.set_result, result)

    def finish(self) -> None:
        """The caller has nothing to wait for any more."""
        self._queue.put(None)

    def leave(self) -> None:
        """What nobody did is done elsewhere."""
        with self._lock:
            self._left = True
        while not self._queue.empty():
            errand = self._queue.get()
            if errand is not None:
                _tell(errand[1], errand[1].set_result, _ELSEWHERE)


def _tell(future: asyncio.Future[Any], tell: Callable[[Any], None], what: Any) -> None:
    """Settle a future of the loop from another thread."""

    def settle() -> None:
        if not future.done():
            tell(what)

    try:
        future.get_loop().call_soon_threadsafe(settle)
    except RuntimeError:  # the loop has ended, and the future with it
        pass


portal: Final = Portal()  # one for the process: each further one would be a thread and a connection more
