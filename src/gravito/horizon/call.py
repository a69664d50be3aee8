"""A job with its arguments, and how it is to be queued: what is built before a push."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, Self, TypeVar

import msgspec

from gravito.errors import PayloadError
from gravito.horizon._current import current_horizon
from gravito.horizon._keys import check_id, check_queue
from gravito.horizon.options import PRIORITIES, Priority, read_words

if TYPE_CHECKING:
    from gravito.horizon.handle import JobHandle
    from gravito.horizon.horizon import Horizon
    from gravito.horizon.job import Definition

__all__ = ["Call", "How", "Pending"]

P = ParamSpec("P")
R_co = TypeVar("R_co", covariant=True)
S_co = TypeVar("S_co", covariant=True)


class How(msgspec.Struct, frozen=True, kw_only=True):
    """What one push says beside its arguments; None for what the job's options say."""

    queue: str | None = None
    priority: int | None = None
    delay: int = 0  # ms
    at: int | None = None  # epoch ms; goes before `delay`
    id: str | None = None
    tags: tuple[str, ...] = ()  # besides the job's own
    meta: dict[str, Any] | None = None


PLAIN = How()


class Choices(Generic[S_co]):
    """The words that say how. Each gives a new object and leaves this one as it was."""

    __slots__ = ()

    def _chosen(self, **changes: Any) -> S_co:
        raise NotImplementedError

    def _how(self) -> How:
        return PLAIN

    def delay(self, seconds: float | timedelta) -> S_co:
        """Run it so many seconds from now, by the server's clock."""
        if isinstance(seconds, timedelta):
            seconds = seconds.total_seconds()
        if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 0 <= seconds < 1e10:
            raise PayloadError(f"delay is {seconds!r}; allowed: seconds, 0 or more, or a timedelta")
        return self._chosen(delay=round(seconds * 1000), at=None)

    def at(self, moment: datetime) -> S_co:
        """Run it at this moment, or at once if that has passed; by the server's clock."""
        if not isinstance(moment, datetime):
            raise PayloadError(f"at is {moment!r}; allowed: a datetime with a time zone")
        if moment.tzinfo is None:
            raise PayloadError(
                f"at is {moment!r}, which has no time zone; give it one, as datetime(..., tzinfo=UTC)"
            )
        return self._chosen(at=max(0, round(moment.timestamp() * 1000)), delay=0)

    def priority(self, name: Priority) -> S_co:
        """critical, high, default or low."""
        if not isinstance(name, str) or name not in PRIORITIES:
            raise PayloadError(f"priority is {name!r}; allowed: {', '.join(PRIORITIES)}")
        return self._chosen(priority=PRIORITIES[name])

    def on(self, queue: str) -> S_co:
        """Put it into another queue than the job's own."""
        return self._chosen(queue=check_queue(queue))

    def id(self, job_id: str) -> S_co:
        """Give it an id of your own: an idempotency key. While the queue knows a job of this id, another push of it
        changes nothing and gives that job's handle."""
        return self._chosen(id=check_id(job_id))

    def tags(self, *words: str) -> S_co:
        """More words to find it by."""
        return self._chosen(tags=(*self._how().tags, *read_words("tags", words)))

    def meta(self, **values: Any) -> S_co:
        """Data about the job that are not its arguments; anything that MessagePack holds."""
        return self._chosen(meta={**(self._how().meta or {}), **values})


class Call(Choices["Call[R_co]"], Generic[R_co]):
    """A job with its arguments, encoded and checked, ready to be pushed (any number of times)."""

    __slots__ = ("args", "data", "definition", "horizon", "how", "kwargs")

    def __init__(
        self,
        definition: Definition,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        how: How,
        horizon: Horizon | None,
    ) -> None:
        self.definition = definition
        self.args = args
        self.kwargs = kwargs
        self.how = how
        self.horizon = horizon  # None: the current one, at the push
        self.data = definition.arguments.encode(args, kwargs)

    def __repr__(self) -> str:
        # values may be secret, so their names do
        names = ", ".join(self.definition.arguments.names)
        return f"<Call {self.definition.name}({names}) {self.queue}>"

    @property
    def queue(self) -> str:
        """Where it goes."""
        return self.how.queue or self.definition.options.queue

    async def push(self) -> JobHandle[R_co]:
        """Queue it.

        Returns:
            A handle on it; or, for a unique job or a known id, on the one that is already there (`handle.new`).

        Raises:
            PayloadError: it is too large, or its metadata cannot be encoded.
            ConnectionError, TimeoutError: the server could not be reached; `maybe_applied` says if it may be queued.
                Pushing the same `.id(...)` again is safe.
        """
        handle: JobHandle[R_co] = await (self.horizon or current_horizon()).push(self)
        return handle

    def _how(self) -> How:
        return self.how

    def _chosen(self, **changes: Any) -> Call[R_co]:
        return self._copy(msgspec.structs.replace(self.how, **changes))

    def _copy(self, how: How) -> Self:
        copy = object.__new__(type(self))
        for name in Call.__slots__:
            setattr(copy, name, getattr(self, name))
        copy.how = how
        return copy


class Pending(Choices["Pending[P, R_co]"], Generic[P, R_co]):
    """A job without arguments, and how it is to be queued: `send.delay(60).push("a@b.c")`."""

    __slots__ = ("_given", "definition", "horizon")

    def __init__(self, definition: Definition, how: How, horizon: Horizon | None) -> None:
        self.definition = definition
        self.horizon = horizon
        self._given = how

    def __repr__(self) -> str:
        return f"<Pending {self.definition.name} {self._given}>"

    def make(self, *args: P.args, **kwargs: P.kwargs) -> Call[R_co]:
        """The job with these arguments.

        Raises:
            PayloadError: an argument that does not fit, or cannot be encoded: names the job, the parameter, the type.
        """
        return Call(self.definition, args, kwargs, self._given, self.horizon)

    async def push(self, *args: P.args, **kwargs: P.kwargs) -> JobHandle[R_co]:
        """Queue it with these arguments; see `Call.push`."""
        return await self.make(*args, **kwargs).push()

    def _how(self) -> How:
        return self._given

    def _chosen(self, **changes: Any) -> Pending[P, R_co]:
        return Pending(self.definition, msgspec.structs.replace(self._given, **changes), self.horizon)


def words(given: Iterable[str]) -> tuple[str, ...]:
    """Tags without repeats, in order."""
    return tuple(dict.fromkeys(given))
