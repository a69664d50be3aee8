"""How long a computed value lives, and what happens towards its end. Pure."""

from __future__ import annotations

import math
import random
from collections.abc import Awaitable, Callable, Iterable, Mapping
from datetime import timedelta
from enum import Enum
from typing import Any, Final, Generic, TypedDict, TypeVar

import msgspec

from gravito.errors import ConfigurationError, InvalidTTLError
from gravito.stasis._annotations import check_type
from gravito.stasis._blob import OWN_TTL, SERVE_STALE
from gravito.stasis._several import several
from gravito.stasis._ttl import TTL, check_jitter, ttl_ms

__all__ = ["UNSET", "Factory", "Options", "Policy", "RefreshOptions", "Result", "Unset", "policy_of"]

T = TypeVar("T")
Factory = Callable[[], Awaitable[Any] | Any]


class Unset(Enum):
    """Stands for an argument that was not given, where None means something."""

    UNSET = "as the cache says"

    def __repr__(self) -> str:
        return self.value


UNSET: Final = Unset.UNSET


class RefreshOptions(TypedDict, total=False):
    """What `flexible` takes beside its own parameters."""

    type: Any  # what a stored value is checked against and built into, by msgspec
    jitter: float  # fraction by which the ttl is shortened at random, at most
    early: float  # fraction of the ttl, at its end, in which hits may refresh the value in the background
    none_ttl: TTL  # another ttl for None; 0 does not keep it
    errors: Mapping[type[Exception], float | timedelta]  # exceptions that are kept, and for how long
    template: str  # what statistics and events count the key with


class Options(RefreshOptions, total=False):
    """What `remember` takes beside key, ttl and factory."""

    stale: float | timedelta  # seconds beyond the ttl: the last value serves if the factory fails; 0: none


_ALL: Final = (*RefreshOptions.__annotations__, "stale")
_NO_WINDOW: Final = (None, 0, timedelta())


class Result(Generic[T]):
    """What a factory returns that decides by itself how its value is kept.

    Args:
        value: the value.
        ttl: instead of the caller's.
        tags: beside the caller's. A flush of one of them while the factory runs is seen. If neither names any, the
            value keeps the tags that were last seen on its key.
        store: False keeps nothing: this value is for those who wait for it now.

    Raises:
        InvalidKeyError: tags is one text.
    """

    __slots__ = ("store", "tags", "ttl", "value")

    def __init__(
        self, value: T, *, ttl: TTL | Unset = UNSET, tags: Iterable[str] = (), store: bool = True
    ) -> None:
        self.value = value
        self.ttl = ttl
        self.tags = tuple(several("tags", tags))
        self.store = store

    def __repr__(self) -> str:
        return f"<Result ttl={self.ttl!r} tags={self.tags!r} store={self.store}>"


class Life(msgspec.Struct, frozen=True):
    """The times of one blob, in ms."""

    ttl_ms: int | None  # of the key on the server, its stale window included
    stale_ms: int  # how much of the end of it is the stale window
    flags: int = 0  # of the blob


class Policy(msgspec.Struct, frozen=True, eq=False):
    """The caller's wishes about one computed value; made once for many calls."""

    ttl: TTL  # fresh for so long
    type: Any = None
    jitter: float = 0.0
    early: float = 0.0
    early_ms: int = 0  # how much of the end of the fresh time is for early refreshes
    stale_ms: int = 0
    flexible: bool = False  # serve what is stale without waiting; else only when the factory failed
    none_ttl: TTL | Unset = UNSET
    errors: tuple[tuple[type[Exception], float | timedelta], ...] = ()
    template: str | None = None
    timed: bool = False  # reads need the time that remains

    def life(self, ttl: TTL | Unset = UNSET, value: Any = UNSET) -> Life | None:
        """The times of a value that was just computed; None if it is not kept.

        Args:
            ttl: what the factory said.
            value: None may have a ttl of its own.
        """
        flags = SERVE_STALE if self.flexible else 0
        if ttl is not UNSET:
            flags |= OWN_TTL
        else:
            ttl = self.ttl
            if value is None and self.none_ttl is not UNSET:
                if self.none_ttl == 0:
                    return None
                return Life(ttl_ms(self.none_ttl, self.jitter, what="none_ttl"), 0, OWN_TTL)
        fresh = ttl_ms(ttl, self.jitter)
        if fresh is None:
            return Life(None, 0, 0)
        return Life(fresh + self.stale_ms, self.stale_ms, flags)

    def kept(self, error: BaseException) -> int | None:
        """Milliseconds for which an exception of the factory is kept; None if it is not."""
        for kind, ttl in self.errors:
            if isinstance(error, kind):
                return ttl_ms(ttl, self.jitter)
        return None


def policy_of(ttl: TTL, options: Options, *, flexible: bool = False, name: str = "ttl") -> Policy:
    """The policy of a call's arguments; `name` is what the caller's ttl is called.

    Raises:
        InvalidTTLError: one of the times, or the jitter, cannot be used.
        ConfigurationError: another option cannot be used, or there is no such option.
    """
    fresh_ms = ttl_ms(ttl, what=name)
    if not options:
        return Policy(ttl)
    unknown = options.keys() - set(_ALL)
    if unknown:
        first = min(unknown)
        raise ConfigurationError(f"there is no option {first!r}; allowed: {', '.join(_ALL)}", field=first)
    check_type(options.get("type"))
    early, stale_ms = options.get("early", 0.0), _stale_ms(options.get("stale"), ttl)
    if isinstance(early, bool) or not isinstance(early, (int, float)) or not 0 <= early <= 1:
        raise ConfigurationError(
            f"early is {early!r}; allowed: a fraction of the ttl, 0 to 1", field="early", value=early
        )
    return Policy(
        ttl,
        options.get("type"),
        check_jitter(options.get("jitter", 0.0)),
        early,
        int((fresh_ms or 0) * early),
        stale_ms,
        flexible,
        _none_ttl(options),
        _errors(options.get("errors", {})),
        _template(options.get("template")),
        bool(early or stale_ms),
    )


def _template(template: Any) -> str | None:
    if template is not None and not (isinstance(template, str) and template):
        raise ConfigurationError(
            f"template is {template!r:.100}; allowed: a text to count the key with",
            field="template",
            value=template,
        )
    return template


def _stale_ms(stale: Any, ttl: TTL) -> int:
    if stale in _NO_WINDOW:
        return 0
    if ttl is None:
        raise ConfigurationError("stale needs a ttl: what is fresh without end is never stale", field="stale")
    return _span_ms(stale, "stale")


def _none_ttl(options: Options) -> TTL | Unset:
    ttl = options.get("none_ttl", UNSET)
    if ttl is not UNSET and not (isinstance(ttl, (int, float)) and ttl == 0):
        ttl_ms(ttl, what="none_ttl")
    return ttl


def _errors(errors: Any) -> tuple[tuple[type[Exception], float | timedelta], ...]:
    if not isinstance(errors, Mapping):
        raise ConfigurationError(
            f"errors is of type {type(errors).__name__}; allowed: a mapping of exception classes to times to live",
            field="errors",
        )
    for kind, ttl in errors.items():
        if not (isinstance(kind, type) and issubclass(kind, Exception)):
            raise ConfigurationError(
                f"errors: {kind!r} is no class of exceptions", field="errors", value=kind
            )
        _span_ms(ttl, f"errors[{kind.__name__}]")
    return tuple(errors.items())


def _span_ms(span: Any, what: str) -> int:
    """Milliseconds of what is a length of time, and has an end."""
    if isinstance(span, bool) or not isinstance(span, int | float | timedelta):
        raise InvalidTTLError(f"{what} {span!r} is a {type(span).__name__}: give seconds or a timedelta")
    return ttl_ms(span, what=what) or 0


def early_now(left_ms: int, early_ms: int, cost_ms: int) -> bool:
    """Whether a hit with `left_ms` of fresh time refreshes the value.

    The chance grows to certainty towards the end. A value that takes long to compute is begun earlier: within its
    own cost of the end the chance is above a third. So those who read seldom have a chance too, and no request
    waits. See Vattani and others, Optimal Probabilistic Cache Stampede Prevention, 2015.
    """
    chance = (1.0 - left_ms / early_ms) ** 3 if left_ms < early_ms else 0.0
    if cost_ms:
        chance = max(chance, math.exp(-max(left_ms, 0) / cost_ms))
    return random.random() < chance
