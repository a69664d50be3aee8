"""What jobs are given by type: made when a worker starts, ended when it stops."""

from __future__ import annotations

import collections.abc
import inspect
from collections.abc import Callable
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from typing import Any, get_args, get_origin, get_type_hints

from gravito.errors import ConfigurationError, InjectionError

__all__ = ["Providers"]

_GENERATORS = (
    collections.abc.AsyncIterator,
    collections.abc.AsyncGenerator,
    collections.abc.Iterator,
    collections.abc.Generator,
)


class Providers:
    """Types, and how to get their one instance of this process."""

    def __init__(self) -> None:
        self._makers: dict[Any, Callable[..., Any]] = {}
        self._values: dict[Any, Any] = {}  # made so far
        self._under_way: list[Any] = []  # being made, to see circles
        self._stack = AsyncExitStack()

    def __repr__(self) -> str:
        return f"<Providers of {', '.join(_name(kind) for kind in self._makers) or 'nothing'}>"

    def add(self, kind: Any, maker: Any) -> None:
        """Provide a type: by a function (plain, async, or a generator that yields it once), or by a value."""
        self._values.pop(kind, None)
        self._makers[kind] = (
            maker if callable(maker) and not isinstance(maker, kind_of(kind)) else lambda: maker
        )

    def add_function(self, maker: Callable[..., Any]) -> None:
        """Provide what the function's return annotation says.

        Raises:
            ConfigurationError: it has none.
        """
        kind = get_type_hints(maker).get("return")
        if kind is None:
            name = getattr(maker, "__qualname__", repr(maker))
            message = f"provider {name} needs a return annotation: the type that it provides"
            raise ConfigurationError(message, field="provider")
        self.add(get_args(kind)[0] if get_origin(kind) in _GENERATORS else kind, maker)

    def knows(self, kind: Any) -> bool:
        """Whether something provides this type."""
        return kind in self._makers

    def value(self, kind: Any) -> Any:
        """The instance.

        Raises:
            InjectionError: nothing provides it, or the worker has not started.
        """
        try:
            return self._values[kind]
        except KeyError:
            if kind in self._makers:
                raise InjectionError(
                    f"{_name(kind)} is not there yet: `await horizon.startup()` makes it"
                ) from None
            raise self._missing(kind) from None

    async def start(self) -> None:
        """Make everything that is not there yet.

        Raises:
            InjectionError: one needs what nothing provides, or needs itself.
        """
        for kind in list(self._makers):
            await self._make(kind)

    async def stop(self) -> None:
        """End everything, the last one first."""
        self._values.clear()
        stack, self._stack = self._stack, AsyncExitStack()
        await stack.aclose()

    async def _make(self, kind: Any) -> Any:
        if kind in self._values:
            return self._values[kind]
        if kind not in self._makers:
            raise self._missing(kind)
        if kind in self._under_way:
            circle = " -> ".join(_name(item) for item in [*self._under_way, kind])
            raise InjectionError(f"providers need each other in a circle: {circle}")
        self._under_way.append(kind)
        try:
            maker = self._makers[kind]
            needs = {name: await self._make(wanted) for name, wanted in _needs(maker).items()}
            self._values[kind] = value = await self._entered(maker, needs)
        finally:
            self._under_way.pop()
        return value

    async def _entered(self, maker: Callable[..., Any], needs: dict[str, Any]) -> Any:
        if inspect.isasyncgenfunction(maker):
            return await self._stack.enter_async_context(asynccontextmanager(maker)(**needs))
        if inspect.isgeneratorfunction(maker):
            return self._stack.enter_context(contextmanager(maker)(**needs))
        value = maker(**needs)
        return await value if inspect.isawaitable(value) else value

    def _missing(self, kind: Any) -> InjectionError:
        known = ", ".join(_name(item) for item in self._makers) or "nothing"
        return InjectionError(
            f"nothing provides {_name(kind)}; provided: {known}. Add it by horizon.provide({_name(kind)}, ...)"
        )


def _needs(maker: Callable[..., Any]) -> dict[str, Any]:
    """Parameters without a default, with their types. A class that is its own maker is asked, too."""
    try:
        parameters = inspect.signature(maker).parameters.values()
    except ValueError:  # some built-in types
        return {}
    wanted = [
        p.name for p in parameters if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    ]
    if not wanted:
        return {}
    hints = get_type_hints(maker.__init__ if isinstance(maker, type) else maker)  # type: ignore[misc]  # only read
    return {name: hints.get(name) for name in wanted}


def kind_of(kind: Any) -> Any:
    """What isinstance can be asked about."""
    return kind if isinstance(kind, type) else get_origin(kind) or ()


def _name(kind: Any) -> str:
    return getattr(kind, "__qualname__", str(kind))
