"""What the server remembers of schedules: when each fired last, and whether it is paused."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final

import msgspec

from gravito.horizon._keys import Keys
from gravito.horizon._pack import FIRST
from gravito.horizon._relay import Relay
from gravito.horizon._scripts import Caller

if TYPE_CHECKING:
    from gravito.horizon._payload import Travel
    from gravito.horizon._plan import Plan
    from gravito.horizon.horizon import Horizon
    from gravito.horizon.schedule import Missed

__all__ = ["Book", "Fire", "Page", "digest", "due"]

QUEUE: Final = "gravito.schedules"  # a slot for them, with an outbox that reaches the queues
_LATE: Final = timedelta(seconds=30)  # a fire that is later than this was missed, and its policy decides
_encode = msgspec.msgpack.Encoder().encode


class Page(msgspec.Struct, frozen=True):
    """One schedule in the book."""

    last: int | None = None  # ms: fires up to here are dealt with
    digest: str = ""  # of the plan that `last` is about
    paused: bool = False
    fired: int | None = None  # ms of the last fire that pushed something
    job: str = ""  # id of what it pushed


class Fire(msgspec.Struct, frozen=True):
    """What a scheduler wants to note: a schedule's fires up to `last`, and what they push."""

    name: str
    seen: int | None  # `last`, as the scheduler read it; if it has changed since, another one was first
    digest: str
    last: int
    travels: tuple[Travel, ...] = ()
    here: int = 0  # times that a command runs on the scheduler's own machine instead


class Book:
    """The book of one Horizon's schedules.

    Args:
        horizon: whose.
    """

    def __init__(self, horizon: Horizon) -> None:
        settings = horizon.settings
        client = horizon.client

        def caller(queue: str) -> Caller:
            return Caller(client, Keys(queue, settings.prefix, client.settings.key_prefix), settings.patience)

        keys = Keys(QUEUE, settings.prefix, client.settings.key_prefix)
        self._caller = caller(QUEUE)
        self._key = keys.part("book")
        self._relay = Relay(QUEUE, self._caller, caller)

    async def read(self) -> tuple[int, dict[str, Page]]:
        """The server's time in ms, and all pages."""
        return _read(await self._caller.run("book", (), self._key))

    async def pause(self, name: str, paused: bool) -> None:
        """Stop a schedule from firing, or let it fire again; what it misses meanwhile is not made up for."""
        await self._caller.run("book", (name, "1" if paused else ""), self._key)

    async def forget(self, name: str) -> None:
        """Drop the page of a schedule that no longer exists."""
        await self._caller.run("book", (name,), self._key)

    async def note(self, fires: Sequence[Fire]) -> list[bool]:
        """Note fires, and send on what they push; for each whether this scheduler was the first."""
        blobs: list[bytes] = []
        args = []
        for fire in fires:
            entries = []
            for queue, envelope in fire.travels:
                blobs.append(_encode(("push", queue, [envelope])))
                entries.append(FIRST + len(blobs) - 1)
            seen = "" if fire.seen is None else str(fire.seen)
            ids = [envelope.id for _, envelope in fire.travels]
            args.append((fire.name, seen, fire.digest, str(fire.last), ids, entries))
        _, *taken = await self._caller.run("fire", args, self._key, blobs=blobs)
        return [flag == 1 for flag in taken]

    async def relay(self) -> int:
        """Carry on what fires have pushed, also those of a scheduler that is gone."""
        return await self._relay.carry()


def due(
    plan: Plan, last: datetime, now: datetime, policy: Missed, limit: int
) -> tuple[list[datetime], datetime]:
    """The fires that are to happen now, and up to when all are dealt with. Pure.

    Args:
        plan: the schedule's.
        last: up to here they were dealt with before.
        now: the present.
        policy: what happens with those that are late.
        limit: of the policy "all".
    """
    recent = plan.between(max(last, now - _LATE), now, 1000)
    if last >= now - _LATE:
        return recent, max(last, now)
    late: list[datetime] = []
    if policy == "all":
        late = plan.between(last, now - _LATE, limit)
    elif policy == "once" and not recent:  # else the recent one makes up for them
        late = plan.between(last, now - _LATE, 1)
    return late + recent, now


def digest(plan: Plan) -> str:
    """Tells one plan from another."""
    said = f"{plan.cron}|{plan.interval}|{plan.zone}|{plan.windows}"
    return sha256(said.encode()).hexdigest()[:12]


def moment(ms: int) -> datetime:
    """A moment from milliseconds since the epoch."""
    return datetime.fromtimestamp(ms / 1000, UTC)


def milliseconds(at: datetime) -> int:
    """Milliseconds since the epoch."""
    return round(at.timestamp() * 1000)


def _read(reply: Sequence[Any]) -> tuple[int, dict[str, Page]]:
    now, *flat = reply
    pages = {}
    for name, entry in zip(flat[::2], flat[1::2], strict=True):
        last, plan, paused, fired, job = entry.decode().split(":", 4)
        pages[name.decode()] = Page(
            int(last) if last else None, plan, paused == "1", int(fired) if fired else None, job
        )
    return now, pages
