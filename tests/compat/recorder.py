"""Calls as data: a family of calls is a plain function that speaks to a recorder instead of a client."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class Call:
    """One method call, and how far its reply must agree between two clients."""

    steps: tuple[tuple[str, tuple[Any, ...], Mapping[str, Any]], ...]  # json().get("k") has two
    compare: Callable[[Any], Any]

    def on(self, client: Any) -> Any:
        """Make the call."""
        for name, args, kwargs in self.steps:
            client = getattr(client, name)(*args, **kwargs)
        return client

    def __str__(self) -> str:
        parts = []
        for name, args, kwargs in self.steps:
            words = [repr(value) for value in args] + [f"{key}={value!r}" for key, value in kwargs.items()]
            parts.append(f"{name}({', '.join(words)})")
        return ".".join(parts)


def same(reply: Any) -> Any:
    """The reply itself."""
    return reply


def shape(reply: Any) -> Any:
    """Types only, down to the keys of mappings: for times, identities, sizes."""
    if isinstance(reply, dict):
        return {key: shape(value) for key, value in reply.items()}
    if isinstance(reply, list | tuple):
        return type(reply)(shape(value) for value in reply)
    return type(reply)


def outline(reply: Any) -> Any:
    """The type of the reply and the type of each kind of item: for lists whose length varies."""
    if isinstance(reply, dict):
        return dict, {type(key) for key in reply}
    if isinstance(reply, list | tuple | set):
        return type(reply), {type(value) for value in reply}
    return type(reply)


def bag(reply: Any) -> Any:
    """A list whose order is the server's business."""
    return sorted(reply, key=repr) if isinstance(reply, list) else reply


def bags(reply: Any) -> Any:
    """The same for lists at every depth."""
    if isinstance(reply, dict):
        return {key: bags(value) for key, value in reply.items()}
    return sorted(map(bags, reply), key=repr) if isinstance(reply, list | tuple) else reply


class Recorder:
    """Notes every method call on it as a `Call`; `shape`, `outline`, `bag`, `bags` say how to compare the next."""

    _MODULES = frozenset({"json", "ft", "ts", "bf", "cf", "cms", "topk", "tdigest", "vset"})

    def __init__(self, calls: list[Call], compare: Callable[[Any], Any] = same, steps: tuple[Any, ...] = ()):
        self._calls = calls
        self._compare = compare
        self._steps = steps

    @property
    def shape(self) -> Recorder:
        return Recorder(self._calls, shape)

    @property
    def outline(self) -> Recorder:
        return Recorder(self._calls, outline)

    @property
    def bag(self) -> Recorder:
        return Recorder(self._calls, bag)

    @property
    def bags(self) -> Recorder:
        return Recorder(self._calls, bags)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def note(*args: Any, **kwargs: Any) -> Recorder | None:
            steps = (*self._steps, (name, args, kwargs))
            if name in self._MODULES and not self._steps:
                return Recorder(self._calls, self._compare, steps)
            self._calls.append(Call(steps, self._compare))
            return None

        return note


Family = Callable[[Recorder], None]


def calls_of(family: Family) -> list[Call]:
    """The calls that the family makes, in order."""
    calls: list[Call] = []
    family(Recorder(calls))
    return calls
