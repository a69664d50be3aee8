"""`@cached`: a function whose results are kept."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from functools import partial, update_wrapper
from typing import Any, Concatenate, Final, Generic, ParamSpec, Protocol, TypeVar, Unpack, overload

from gravito import errors
from gravito.stasis._anew import compute_anew
from gravito.stasis._decorated import Plan, Where
from gravito.stasis._policy import UNSET, RefreshOptions, Result, Unset
from gravito.stasis._several import several, turns
from gravito.stasis.cache import Cache

__all__ = ["CachedFunction", "cached"]

P = ParamSpec("P")
Q = ParamSpec("Q")
T = TypeVar("T")


class CachedFunction(Generic[P, T]):
    """An asynchronous function whose results are kept, made by `cached`. Called like the function itself.

    Its further methods take the arguments of a call and are about the entry of that call. Of a method, they are
    reached through the instance: `repository.load.forget(7)`.
    """

    _plan: Plan
    _instance: tuple[
        Any, ...
    ]  # what the first parameter is, for a method that was reached through an instance

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._instance = ()
        update_wrapper(self, plan.function)
        if hasattr(inspect, "markcoroutinefunction"):  # from Python 3.12 on
            inspect.markcoroutinefunction(self)

    def __repr__(self) -> str:
        return f"<CachedFunction {self._plan.function.__qualname__} {self._plan.key.text!r}>"

    async def __call__(self, *args: P.args, **kwargs: P.kwargs) -> T:
        """The kept result; without one, the function runs, once for all who ask. As `Cache.remember`."""
        found: T = await self._remember(args, kwargs)
        return found

    @overload
    def __get__(self, instance: None, owner: Any = None) -> CachedFunction[P, T]: ...

    @overload
    def __get__(
        self: CachedFunction[Concatenate[Any, Q], T], instance: object, owner: Any = None
    ) -> CachedFunction[Q, T]: ...

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        """Of a method: the same, for one instance."""
        if instance is None:
            return self
        bound = CachedFunction.__new__(CachedFunction)
        bound.__dict__.update(self.__dict__)
        bound._instance = (instance,)
        return bound

    def key(self, *args: P.args, **kwargs: P.kwargs) -> str:
        """The key of the entry.

        Raises:
            TypeError: these are not the function's arguments.
            InvalidKeyError: an argument that has no text of its own, or too long a key.
        """
        return self._where(args, kwargs).key

    async def forget(self, *args: P.args, **kwargs: P.kwargs) -> bool:
        """Forget the result; who computes it now does not put it back. As `Cache.forget`."""
        where = self._where(args, kwargs)
        return await where.view.forget(where.key)

    async def peek(self, *args: P.args, **kwargs: P.kwargs) -> T | None:
        """The kept result; None without one. The function does not run."""
        where = self._where(args, kwargs)
        found: T | None = await where.view.get(where.key, type=self._plan.type)
        return found

    async def refresh(self, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run the function now and keep what it returns. Until then others get the old result, if it has an end.

        Raises:
            Exception: the function's. The old result stays, if it has an end.
        """
        where = self._where(args, kwargs)
        policy = self._plan.policy(where.view)
        found: T = await compute_anew(where.view, where.key, policy, self._factory(args, kwargs))
        return found

    async def put(self, value: T, *args: P.args, **kwargs: P.kwargs) -> bool:
        """Keep `value` as the result of a call with these arguments. As `Cache.put`: without a stale window."""
        where, plan = self._where(args, kwargs), self._plan
        return await where.view.put(where.key, value, plan.ttl, jitter=plan.jitter, type=plan.type)

    async def warm(
        self, calls: Iterable[Sequence[Any] | Mapping[str, Any]], *, concurrency: int = 10
    ) -> list[tuple[Sequence[Any] | Mapping[str, Any], Exception]]:
        """Compute what is missing, before anybody asks for it.

        Args:
            calls: arguments of each: a tuple of those given by position, or a dict of those given by name.
            concurrency: how many run at the same time.

        Returns:
            The calls that failed, with their errors.

        Raises:
            ConfigurationError, TypeError: an argument that cannot be used; nothing ran.
        """
        turn = turns(concurrency)
        given = list(several("calls", calls, partial(errors.ConfigurationError, field="calls")))
        for call in given:
            if isinstance(call, str | bytes) or not isinstance(call, Sequence | Mapping):
                raise TypeError(f"warm: {call!r} is a call's arguments as neither a tuple nor a dict")
        failed: list[tuple[Sequence[Any] | Mapping[str, Any], Exception]] = []

        async def one(call: Sequence[Any] | Mapping[str, Any]) -> None:
            async with turn:
                try:
                    await (
                        self._remember((), call) if isinstance(call, Mapping) else self._remember(call, {})
                    )
                except Exception as error:
                    failed.append((call, error))

        await asyncio.gather(*[one(call) for call in given])
        return failed

    # -- steps -----------------------------------------------------------------------------------------------

    def _where(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Where:
        return self._plan.where((*self._instance, *args), kwargs)

    def _factory(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Callable[[], Any]:
        return partial(self._plan.function, *self._instance, *args, **kwargs)

    def _remember(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Awaitable[Any]:
        where = self._where(args, kwargs)
        return where.view._remember(where.key, self._plan.policy(where.view), self._factory(args, kwargs))


class CachedOptions(RefreshOptions, total=False):
    """What `cached` takes beside ttl, key, tags and cache: what `Cache.remember` and `Cache.flexible` take."""

    stale: float | timedelta
    flexible: bool  # what is past its ttl is given out at once in the stale window, as `Cache.flexible` does


_OPTIONS: Final = CachedOptions.__annotations__  # with those of RefreshOptions


class _Decorator(Protocol):
    @overload
    def __call__(self, function: Callable[P, Awaitable[Result[T]]]) -> CachedFunction[P, T]: ...

    @overload
    def __call__(self, function: Callable[P, Awaitable[T]]) -> CachedFunction[P, T]: ...


def cached(
    ttl: float | timedelta | Unset | None = UNSET,
    key: str | None = None,
    tags: Iterable[str] = (),
    *,
    cache: Cache | Callable[[], Cache] | None = None,
    **options: Unpack[CachedOptions],
) -> _Decorator:
    """Keep the results of an asynchronous function or method.

    Example::

        @cached(ttl=300, key="user:{user_id}", tags=["team:{team_id}"], early=0.2, stale=600)
        async def load_user(user_id: int, team_id: int) -> User: ...

    Args:
        ttl: seconds, a timedelta, or None for without end; the cache's own if not given.
        key: a template of the function's arguments, with attributes if need be: "user:{user.id}". Without one: the
            function's name and all its arguments but `self`, where values of different types are different calls (only
            a tuple is as a list). With one, arguments that it does not name do not tell results apart, nor do types: 1
            and "1" make one key.
        tags: templates of tags that each result bears.
        cache: the cache, or a function that returns it; None for `default_cache()`.
        **options: as of `Cache.remember`. `flexible=True` serves what is past its ttl in its stale window at once,
            while it is computed anew behind that, as `Cache.flexible` does. `type` is the function's return
            annotation where msgspec can check that. `template`, for statistics, is `key`.

    Raises:
        InvalidKeyError: a template that cannot be used, or names what is no parameter.
        InvalidTTLError, ConfigurationError: another setting that cannot be used, or a function that is not asynchronous.
    """

    if callable(ttl) or isinstance(ttl, classmethod):
        raise errors.ConfigurationError(
            "@cached stands without parentheses: write @cached(ttl=300), or @cached() for the cache's own ttl",
            field="ttl",
        )
    for name in options.keys() - _OPTIONS.keys():
        raise errors.ConfigurationError(
            f"@cached: there is no option {name!r}; allowed: ttl, key, tags, cache, {', '.join(_OPTIONS)}",
            field=name,
        )

    def decorate(function: Callable[..., Any]) -> Any:
        names = (ttl, key, tuple(several("tags", tags)))
        return CachedFunction(Plan(_asynchronous(function), names, cache, dict(options)))

    return decorate


def _asynchronous(function: Any) -> Callable[..., Any]:
    if isinstance(function, classmethod | staticmethod):
        raise errors.ConfigurationError(
            f"@cached stands above @{type(function).__name__}; put it below, next to the function",
            field="function",
        )
    if not inspect.iscoroutinefunction(function):
        name = getattr(function, "__qualname__", None) or repr(function)
        raise errors.ConfigurationError(
            f"@cached: {name} is not asynchronous; write `async def`, and run what blocks with asyncio.to_thread, "
            "or without an event loop use cache.sync.remember(key, ttl, factory)",
            field="function",
        )
    return function  # type: ignore[no-any-return]  # checked above
