"""What wires count, and whom they tell: plain numbers, an optional latency histogram, and the users' hooks."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from typing import Literal

import msgspec

from gravito import errors

log = logging.getLogger("gravito.atlas")

Kind = Literal["connect", "disconnect", "retry", "gap"]


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """What a hook is told."""

    kind: Kind
    connection: str  # the connection's name
    address: str  # the server, without credentials
    reason: str | None = None  # the error's text, for all kinds but "connect"
    command: str | None = None  # the command's name, for "retry"
    attempt: int = 0  # the try that comes next, for "retry"


class Hooks:
    """Callbacks by kind of event. One that fails is reported in the log and changes nothing else."""

    def __init__(self) -> None:
        self._callbacks: dict[str, list[Callable[[Event], object]]] = {}

    def add(self, kind: Kind, callback: Callable[[Event], object]) -> None:
        """Call `callback` at each event of this kind; a plain function, for nobody would await its result."""
        own = getattr(callback, "__call__", None)  # noqa: B004  # an object's own method may be the async one
        if (
            not callable(callback)
            or inspect.iscoroutinefunction(callback)
            or inspect.iscoroutinefunction(own)
        ):
            raise errors.ConfigurationError(
                f"on_{kind} was given {type(callback).__name__} {getattr(callback, '__name__', '')!r}; "
                "allowed: a plain function of one argument, the event",
                field=f"on_{kind}",
                allowed="a plain function",
            )
        self._callbacks.setdefault(kind, []).append(callback)

    def tell(self, event: Event) -> None:
        """Call the callbacks of the event's kind."""
        for callback in self._callbacks.get(event.kind, ()):
            try:
                callback(event)
            except Exception:
                log.exception("a hook for %s failed", event.kind)


class Histogram:
    """Durations in buckets that grow by a quarter: 2 to 25 % wide, a few hundred bytes, whatever the load."""

    def __init__(self) -> None:
        self.buckets = [0] * 256

    def add(self, seconds: float, count: int) -> None:
        """Note `count` durations."""
        micros = int(seconds * 1e6)
        size = micros.bit_length()
        index = micros if size <= 2 else (size - 2) * 4 + (micros >> (size - 3) & 3)
        self.buckets[min(index, 255)] += count

    def quantile(self, share: float) -> float | None:
        """The duration in seconds that `share` of all stay below; None without any."""
        total = sum(self.buckets)
        if not total:
            return None
        left = share * total
        for index, count in enumerate(self.buckets):
            left -= count
            if left <= 0 and count:
                return _upper(index) / 1e6
        return None

    def merge(self, other: Histogram) -> None:
        """Add another's durations to these."""
        self.buckets = [mine + theirs for mine, theirs in zip(self.buckets, other.buckets, strict=True)]


def _upper(index: int) -> float:
    """The upper end of a bucket, in microseconds."""
    if index < 4:
        return index + 1.0
    size, part = index // 4 + 2, index % 4
    return float((4 + part + 1) << (size - 3))


class Meter:
    """The counters of one client in one loop. Written by its wires, read by `Client.stats`."""

    def __init__(self, latency: bool = False) -> None:
        self.commands = 0  # written
        self.replies = 0  # received, of any kind but pushes
        self.errors = 0  # error replies that reached callers
        self.timeouts = 0  # callers whose deadline passed after their command was written
        self.retries = 0  # commands sent again
        self.connects = 0  # wires opened
        self.disconnects = 0  # wires that ended other than by this client's will
        self.gaps = 0  # times that messages may have been missed
        self.bytes_sent = 0
        self.bytes_received = 0
        self.latency = Histogram() if latency else None  # from write to reply; kept only on request

    def counters(self) -> dict[str, int]:
        """The plain numbers by name."""
        return {name: value for name, value in vars(self).items() if name != "latency"}

    def forget(self) -> None:
        """Start counting anew."""
        for name in self.counters():
            setattr(self, name, 0)
        self.latency = Histogram() if self.latency is not None else None

    def merge(self, other: Meter) -> None:
        """Add another's numbers to these."""
        for name, value in other.counters().items():
            setattr(self, name, getattr(self, name) + value)
        if other.latency is not None:
            if self.latency is None:
                self.latency = Histogram()
            self.latency.merge(other.latency)


class Stats(msgspec.Struct, frozen=True, kw_only=True):
    """A client's counters since it was made, in all loops together, and what its wires hold now."""

    commands: int
    replies: int
    errors: int
    timeouts: int
    retries: int
    connects: int
    disconnects: int
    gaps: int
    bytes_sent: int
    bytes_received: int
    in_flight: int  # now
    waiting: int  # now: for a wire or for room
    connections: int  # wires open now, those of subscriptions too
    leased: int  # wires lent now
    idle: int  # wires open and free now
    latency_p50: float | None = None  # seconds; None unless measure_latency is on
    latency_p99: float | None = None
