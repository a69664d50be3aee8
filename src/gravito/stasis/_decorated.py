"""What `cached` knows of a function: the templates of its key and tags, and how its results are kept."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from types import SimpleNamespace
from typing import Any, Final, NamedTuple

import msgspec

from gravito import errors
from gravito.stasis import _models
from gravito.stasis._annotations import classes_in
from gravito.stasis._computed import Computed
from gravito.stasis._default import default_cache
from gravito.stasis._names import Template
from gravito.stasis._policy import UNSET, Policy, Result, policy_of
from gravito.stasis.cache import Cache

__all__ = ["Plan", "Where"]

_MOST_VIEWS: Final = 1000  # of one function that are kept: one for each set of tags
_UNKNOWN: Final = object()


class Where(NamedTuple):
    """The entry of one call."""

    view: Computed  # the cache, with the call's tags and the function's template
    key: str


class Plan:
    """See above.

    Args:
        function: asynchronous.
        names: ttl, key template or None, tag templates.
        cache: as of `cached`.
        options: likewise; checked here.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        names: tuple[Any, str | None, tuple[str, ...]],
        cache: Cache | Callable[[], Cache] | None,
        options: dict[str, Any],
    ) -> None:
        self.function = function
        self.ttl, key, tags = names
        self.key = Template(key) if key is not None else Template(_usual(function), typed=True)
        self._key_of = self.key.binder(function)
        self._tags_of = [Template(tag).binder(function) for tag in tags]
        self._cache = _source(cache)
        self._flexible = options.pop("flexible", False)
        self._options = {"template": self.key.text, **options}
        self._type = options.get("type", _UNKNOWN)
        if self._type is _UNKNOWN:
            self._type = _returned(function)
        self._views: dict[tuple[str, ...], Computed] = {}  # of the cache last used, by tags
        self._used: Cache | None = None
        self._policy: tuple[Any, Policy] | None = None  # the ttl that it was made for, and it
        self._check()

    def _check(self) -> None:
        if isinstance(self.ttl, datetime):
            raise errors.InvalidTTLError(
                "ttl is a datetime, which is one moment for all calls to come; return Result(value, ttl=...) instead"
            )
        if self._flexible and self._options.get("stale") is None:
            raise errors.ConfigurationError("flexible needs stale, in seconds", field="flexible")
        self._made(1 if self.ttl is UNSET else self.ttl)

    @property
    def jitter(self) -> float:
        """Fraction by which a ttl is shortened at random, at most."""
        jitter: float = self._options.get("jitter", 0.0)
        return jitter

    @property
    def type(self) -> Any:
        """What kept results are checked against; None for what they say themselves."""
        if self._type is _UNKNOWN:  # its names did not exist when the function was decorated
            self._type = _returned(self.function)
            if self._type is _UNKNOWN:
                self._type = None
        return self._type

    def where(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Where:
        """The entry of a call with these arguments."""
        cache, given = self._cache(), tuple(args)
        key = self._key_of(given, kwargs)
        tags = tuple([tag_of(given, kwargs) for tag_of in self._tags_of]) if self._tags_of else ()
        if cache is not self._used or len(self._views) > _MOST_VIEWS:
            self._used, self._views = cache, {}
        view = self._views.get(tags)
        if view is None:
            view = self._views[tags] = cache._view(tags, self._options["template"])
        return Where(view, key)

    def policy(self, view: Computed) -> Policy:
        """How results are kept, in a cache."""
        ttl = view._core.ttl if self.ttl is UNSET else self.ttl
        if self._policy is None or self._policy[0] is not ttl:
            self._policy = ttl, self._made(ttl, self.type)
        return self._policy[1]

    def _made(self, ttl: Any, kind: Any = None) -> Policy:
        options: Any = {**self._options, "type": kind}
        return policy_of(ttl, options, flexible=self._flexible)


def _source(cache: Any) -> Callable[[], Cache]:
    if cache is None:
        return default_cache
    if isinstance(cache, Cache):
        return lambda: cache
    if callable(cache):
        return cache  # type: ignore[no-any-return]  # the application's own function
    raise errors.ConfigurationError(
        f"cache is of type {type(cache).__name__}; allowed: a Cache, a function that returns one, or None",
        field="cache",
    )


def _usual(function: Callable[..., Any]) -> str:
    """A template of a function's name and all of its parameters."""
    parameters = list(inspect.signature(function).parameters.values())
    if parameters and parameters[0].name in ("self", "cls"):
        parameters = parameters[1:]
    named = f"{function.__module__}.{function.__qualname__}"
    for each in parameters:
        if each.kind in (each.VAR_POSITIONAL, each.VAR_KEYWORD):
            raise errors.InvalidKeyError(
                f"{named} takes *{each.name}, which makes no key by itself; give key=, a template"
            )
    return named + "".join(f":{{{each.name}}}" for each in parameters)


def _returned(function: Callable[..., Any]) -> Any:
    """The return annotation if kept results can be checked against it, None if not, _UNKNOWN if its names are missing."""
    annotation = inspect.get_annotations(function).get("return")
    try:
        hints = typing.get_type_hints(
            SimpleNamespace(__annotations__={"return": annotation}), function.__globals__
        )
    except NameError:
        return _UNKNOWN
    found = hints["return"]
    if typing.get_origin(found) is Result:
        (found,) = typing.get_args(found)
    return found if _can_check(found) else None


def _can_check(annotation: Any) -> bool:
    """Whether msgspec (or pydantic) can; what it cannot comes back by the names that are recorded of it."""
    if annotation in (None, type(None), Any, object, Result):
        return False
    try:
        msgspec.msgpack.Decoder(annotation)
        return not any(
            isinstance(msgspec.inspect.type_info(kind), msgspec.inspect.CustomType)
            and not _models.is_model(kind)
            for kind in classes_in(annotation)
        )
    except Exception:  # msgspec says no in many words
        return False
