"""What may be said of a job: how it is queued, tried again, bounded and kept."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, Literal, TypedDict

import msgspec

from gravito.errors import ConfigurationError
from gravito.horizon import _backoff
from gravito.horizon._keys import check_queue

__all__ = ["Concurrency", "JobOptions", "Options", "Priority", "Rate", "read_options"]

Priority = Literal["critical", "high", "default", "low"]
PRIORITIES: Final[Mapping[str, int]] = {"critical": 0, "high": 1, "default": 2, "low": 3}

_UNITS: Final = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_RATE: Final = re.compile(r"(\d+)\s*/\s*(\d*)\s*(s|m|h|d)[a-z]*")


class Rate(msgspec.Struct, frozen=True):
    """At most so many starts in a time; jobs over it wait, and none is lost.

    Args:
        limit: starts.
        per: seconds.
        by: a function of the job's arguments; each value has a limit of its own. None: one limit for all.
    """

    limit: int
    per: float = 1.0
    by: Callable[..., Any] | None = None

    def __post_init__(self) -> None:
        _check("rate.limit", self.limit, _whole(self.limit) and self.limit > 0, "a whole number over 0")
        _check("rate.per", self.per, _positive(self.per), "seconds, over 0")
        _function("rate.by", self.by)


class Concurrency(msgspec.Struct, frozen=True):
    """At most so many at the same time, over all workers; jobs over it wait.

    Args:
        limit: running jobs.
        by: a function of the job's arguments; each value has a limit of its own. None: one limit for all.
    """

    limit: int
    by: Callable[..., Any] | None = None

    def __post_init__(self) -> None:
        good = _whole(self.limit) and self.limit > 0
        _check("concurrency.limit", self.limit, good, "a whole number over 0")
        _function("concurrency.by", self.by)


class JobOptions(TypedDict, total=False):
    """The options of `@job`, of `horizon.job` and (as attributes) of a `Job` class; see `Options`."""

    name: str
    queue: str
    priority: Priority
    retries: int
    backoff: str | float | Sequence[float] | Callable[[int], float]
    timeout: float | None
    retry_on: type[BaseException] | tuple[type[BaseException], ...]
    discard_on: type[BaseException] | tuple[type[BaseException], ...]
    unique: bool | Callable[..., Any]
    unique_for: float | None
    fair_by: Callable[..., Any] | None
    rate: str | Rate | None
    concurrency: int | Concurrency | None
    results: bool
    tags: Sequence[str]
    secret: Sequence[str]
    cpu: bool
    version: int
    upgrade: Callable[[int, dict[str, Any]], dict[str, Any]] | None
    max_bytes: int | None
    encrypt: bool | None


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """How a job is handled.

    Args:
        queue: where it goes.
        priority: critical, high, default or low; low ones are served too while there are others.
        retries: attempts after the first one; then it is dead.
        backoff: "exponential", "fixed", seconds, a list of seconds, or a function from the attempt (1 for the first)
            to seconds.
        timeout: seconds that one attempt may take; None for no limit. A job in a thread cannot be stopped.
        retry_on: only these exceptions lead to another attempt; any other one ends the job.
        discard_on: these end the job without a trace among the dead.
        unique: True, or a function of the arguments: while a job of the same value is queued or running, a push
            gives that job's handle.
        unique_for: seconds, at most so long; None: until that job ends.
        fair_by: a function of the arguments: jobs of different values take turns.
        rate: `Rate`, or text as "100/m", "10/30s".
        concurrency: `Concurrency`, or how many.
        results: keep what the job returns. Without it `handle.result()` has nothing to give.
        tags: words to find the jobs by.
        secret: parameters that are masked wherever arguments are shown.
        cpu: run a sync function in a process of its own rather than in a thread.
        version: of the arguments' form; raise it when older bodies no longer fit.
        upgrade: function `(version, arguments by name)` -> arguments, for bodies of an older version.
        max_bytes: of the encoded arguments, and of the result; None for the Horizon's limit.
        encrypt: None: if the Horizon has keys.
    """

    queue: str = "default"
    priority: Priority = "default"
    retries: int = 3
    backoff: Callable[[int], float] = _backoff.Exponential()
    timeout: float | None = 3600.0
    retry_on: tuple[type[BaseException], ...] = (Exception,)
    discard_on: tuple[type[BaseException], ...] = ()
    unique: bool | Callable[..., Any] = False
    unique_for: float | None = None
    fair_by: Callable[..., Any] | None = None
    rate: Rate | None = None
    concurrency: Concurrency | None = None
    results: bool = True
    tags: tuple[str, ...] = ()
    secret: tuple[str, ...] = ()
    cpu: bool = False
    version: int = 1
    upgrade: Callable[[int, dict[str, Any]], dict[str, Any]] | None = None
    max_bytes: int | None = None
    encrypt: bool | None = None

    def __repr__(self) -> str:
        changed = (
            f"{name}={getattr(self, name)!r}"
            for name in self.__struct_fields__
            if getattr(self, name) != getattr(_DEFAULTS, name)
        )
        return f"Options({', '.join(changed)})"


_DEFAULTS: Final = Options()
NAMES: Final = frozenset(Options.__struct_fields__)


def read_options(job: str, given: Mapping[str, Any]) -> Options:
    """Options of what a user wrote.

    Raises:
        ConfigurationError: names the job, the option, its value and what is allowed.
    """
    try:
        return _read(given)
    except ConfigurationError as error:
        message = f"job {job!r}: {error}"
        raise ConfigurationError(
            message, field=error.field, value=error.value, allowed=error.allowed
        ) from error


def _read(given: Mapping[str, Any]) -> Options:
    for name in given:
        _check("option", name, name in NAMES, ", ".join(sorted(NAMES)))
    read = dict(given)
    for name, convert in _READERS.items():
        if name in read:
            read[name] = convert(name, read[name])
    options = Options(**read)
    if options.unique_for is not None and options.unique is False:
        raise ConfigurationError(
            "unique_for is given without unique", field="unique_for", allowed="together with unique"
        )
    return options


def _queue(name: str, value: Any) -> str:
    return check_queue(value)


def _priority(name: str, value: Any) -> Any:
    return _check(name, value, isinstance(value, str) and value in PRIORITIES, ", ".join(PRIORITIES))


def _count(name: str, value: Any) -> int:
    return int(_check(name, value, _whole(value) and value >= 0, "a whole number, 0 or more"))


def _bytes(name: str, value: Any) -> int | None:
    good = value is None or (_whole(value) and value > 0)
    found: int | None = _check(name, value, good, "bytes, over 0, or None")
    return found


def _seconds(name: str, value: Any) -> float | None:
    return None if value is None else float(_check(name, value, _positive(value), "seconds, over 0, or None"))


def _errors(name: str, value: Any) -> tuple[type[BaseException], ...]:
    kinds = value if isinstance(value, tuple) else (value,)
    good = all(isinstance(kind, type) and issubclass(kind, BaseException) for kind in kinds)
    _check(name, value, good, "an exception class or a tuple of them")
    return kinds


def _function(name: str, value: Any) -> Any:
    return _check(name, value, value is None or callable(value), "a function, or None")


def _unique(name: str, value: Any) -> Any:
    return _check(name, value, isinstance(value, bool) or callable(value), "True, False, or a function")


def _flag(name: str, value: Any) -> Any:
    return _check(name, value, isinstance(value, bool), "True or False")


def _flag_or_none(name: str, value: Any) -> Any:
    return _check(name, value, value is None or isinstance(value, bool), "True, False or None")


def _words(name: str, value: Any) -> tuple[str, ...]:
    return read_words(name, value)


def _rate(name: str, value: Any) -> Rate | None:
    if value is None or isinstance(value, Rate):
        return value
    found = _RATE.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise _wrong(name, value, "Rate(...), or text as '100/m' or '10/30s'")
    return Rate(int(found[1]), float(found[2] or 1) * _UNITS[found[3]])


def _concurrency(name: str, value: Any) -> Concurrency | None:
    return value if value is None or isinstance(value, Concurrency) else Concurrency(value)


def _backoff_of(name: str, value: Any) -> Callable[[int], float]:
    return _backoff.read(value)


_READERS: Final[Mapping[str, Callable[[str, Any], Any]]] = {
    "queue": _queue,
    "priority": _priority,
    "retries": _count,
    "backoff": _backoff_of,
    "timeout": _seconds,
    "retry_on": _errors,
    "discard_on": _errors,
    "unique": _unique,
    "unique_for": _seconds,
    "fair_by": _function,
    "rate": _rate,
    "concurrency": _concurrency,
    "results": _flag,
    "tags": _words,
    "secret": _words,
    "cpu": _flag,
    "version": _count,
    "upgrade": _function,
    "max_bytes": _bytes,
    "encrypt": _flag_or_none,
}


def read_words(name: str, value: Iterable[str]) -> tuple[str, ...]:
    """A tuple of texts; a lone text is refused, since it would be taken apart."""
    good = not isinstance(value, (str, bytes)) and isinstance(value, Iterable)
    words = tuple(value) if good else ()
    good = good and all(isinstance(word, str) and word for word in words)
    _check(name, value, good, "a list of texts")
    return words


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _positive(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < float("inf")


def _check(name: str, value: Any, good: bool, allowed: str) -> Any:
    if not good:
        raise _wrong(name, value, allowed)
    return value


def _wrong(name: str, value: Any, allowed: str) -> ConfigurationError:
    return ConfigurationError(
        f"{name} is {value!r}; allowed: {allowed}", field=name, value=value, allowed=allowed
    )
