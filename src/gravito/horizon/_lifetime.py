"""What the jobs of a worker process share: what is provided to them, and what is called when it starts and ends."""

from __future__ import annotations

import asyncio
import inspect
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from gravito.horizon._providers import Providers
from gravito.horizon.context import JobContext

if TYPE_CHECKING:
    from gravito.horizon._batches import Batches
    from gravito.horizon.job import Definition

__all__ = ["Lifetime"]

P = ParamSpec("P")
T = TypeVar("T")

_HOOK = Callable[[], Any]


class Lifetime(ABC):
    """See the module."""

    batches: Batches

    def __init__(self) -> None:
        self._providers = Providers()
        self._on_startup: list[_HOOK] = []
        self._on_shutdown: list[_HOOK] = []
        self._started = 0  # startups less shutdowns
        self._upkeep: asyncio.Task[None] | None = None  # while started

    @property
    @abstractmethod
    def jobs(self) -> Mapping[str, Definition]:
        """All jobs by name."""

    def provide(self, kind: type[T], maker: Callable[..., Any] | T) -> None:
        """Say what jobs get for a parameter `name: kind = inject()`.

        Args:
            kind: the annotation.
            maker: a function, called once per worker process when it starts: plain, async, or a generator (async or
                not) whose part behind `yield` runs when the worker stops; its parameters are injected by their
                annotations, too. Or the value itself.
        """
        self._providers.add(kind, maker)

    def provider(self, maker: Callable[P, T]) -> Callable[P, T]:
        """Decorator: `provide` for the type that the function's return annotation names."""
        self._providers.add_function(maker)
        return maker

    def on_startup(self, hook: Callable[[], T]) -> Callable[[], T]:
        """Decorator: call this, which may be async, when a worker has its providers and before its first job."""
        self._on_startup.append(hook)
        return hook

    def on_shutdown(self, hook: Callable[[], T]) -> Callable[[], T]:
        """Decorator: call this, which may be async, behind a worker's last job."""
        self._on_shutdown.append(hook)
        return hook

    async def startup(self) -> None:
        """Check all jobs, make what is provided and call the start-up hooks. A worker does this.

        Raises:
            ConfigurationError: a job whose signature cannot be used.
            InjectionError: a job asks for what nothing provides.
        """
        for definition in self.jobs.values():
            _ = definition.arguments
            for kind in definition.injected.values():
                if kind is not JobContext and not self._providers.knows(kind):
                    self._providers.value(kind)  # raises
        self._started += 1
        if self._started == 1:
            try:
                await self._providers.start()
                for hook in self._on_startup:
                    await _called(hook)
            except BaseException:
                self._started = 0  # the next start is the first one again
                await self._providers.stop()
                raise
            self._upkeep = asyncio.get_running_loop().create_task(self.batches.look_after())

    async def shutdown(self) -> None:
        """Call the shut-down hooks, the last one first, and end what is provided; all of it, even if a part fails."""
        self._started -= 1
        if self._started:
            return
        if self._upkeep is not None:
            self._upkeep.cancel()
            await asyncio.wait([self._upkeep])
        first: Exception | None = None
        for hook in [*reversed(self._on_shutdown)]:
            try:
                await _called(hook)
            except Exception as error:  # the others have to be called, too
                first = first or error
        await self._providers.stop()
        if first is not None:
            raise first

    def injection(self, definition: Definition, job: JobContext) -> dict[str, Any]:
        """Values of the parameters that a job does not get from its payload.

        Raises:
            InjectionError: nothing provides one of them.
        """
        return {
            name: job if kind is JobContext else self._providers.value(kind)
            for name, kind in definition.injected.items()
        }


async def _called(hook: _HOOK) -> None:
    answer = hook()
    if isinstance(answer, Awaitable) or inspect.isawaitable(answer):
        await answer
