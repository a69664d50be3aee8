"""What the server keeps of batches; all of it changes in one script, which may be repeated.

That a job of a batch has ended comes as a note of its completion, through the outbox of its queue. A job that ends
without a worker (cancelled while it waited, given up after crashes) leaves none: `reconcile` looks for those.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import msgspec

from gravito import errors
from gravito.atlas.script import Script
from gravito.errors import GravitoError, PayloadError, ResultTimeoutError, UnknownJobError
from gravito.horizon import _payload
from gravito.horizon._messages import Envelope
from gravito.horizon._payload import Travel
from gravito.horizon.handle import cancel

if TYPE_CHECKING:
    from gravito.horizon.horizon import Horizon

__all__ = ["BatchStatus", "Batches", "Follower"]

log = logging.getLogger("gravito.horizon")

_TEXT: Final = (Path(__file__).parent / "scripts" / "batch.lua").read_text("utf-8")
_KEPT: Final = 7 * 86_400  # seconds that a batch is remembered after its last change
_LISTED: Final = 10_000  # batches that readers find by leafing
_LOOK_AGAIN: Final = 5.0  # seconds; whoever waits asks so often, should a message be lost
_SAMPLE: Final = 200  # jobs that are looked at in one go, however large the batch
_SWEEP: Final = 30.0  # seconds, about, between two looks at the batches that are open
_note = msgspec.msgpack.Decoder(tuple[str, str, str]).decode
_travel = msgspec.msgpack.Decoder(tuple[str, Envelope]).decode

# How the states of jobs are counted.
_COUNTED: Final = {"ok": "ok", "dead": "dead", "cancelled": "cancelled", "discarded": "discarded"}


class Follower(msgspec.Struct, frozen=True, kw_only=True):
    """What is pushed when a batch gets so far.

    Args:
        when: then, catch or finally.
        queue: where it goes.
        id: the job's.
        name: the job's name, of a chain its first one's.
        due: since when it is owed; None: it is not, or not yet.
    """

    when: str
    queue: str
    id: str
    name: str
    due: datetime | None = None


BatchState = Literal["pushing", "running", "done", "failed", "cancelled"]


class BatchStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A batch as it was when it was asked.

    Args:
        id: the batch's.
        name: for people.
        state: pushing (its jobs are on their way), running, done, failed (more jobs are dead than it allows) or
            cancelled; `finished` says whether all jobs have ended.
        total: jobs.
        left: jobs that have not ended.
        ok: jobs that ended well.
        dead: jobs that failed for good.
        cancelled: jobs that were cancelled.
        discarded: jobs that gave up by their own rules, or that another one stood for.
        lost: jobs of which the queue knows nothing more.
        failed_ids: of the dead, the first hundred.
        created: when it was begun.
        ended: when the last job had ended.
        followers: what it pushes at its end.
    """

    id: str
    name: str = ""
    state: BatchState = "running"
    total: int = 0
    left: int = 0
    ok: int = 0
    dead: int = 0
    cancelled: int = 0
    discarded: int = 0
    lost: int = 0
    failed_ids: tuple[str, ...] = ()
    created: datetime | None = None
    ended: datetime | None = None
    followers: tuple[Follower, ...] = ()

    @property
    def finished(self) -> bool:
        """Whether all its jobs have ended."""
        return self.ended is not None

    @property
    def share(self) -> float:
        """How much of it has ended, from 0 to 1."""
        return 1.0 - self.left / self.total if self.total else float(self.finished)


class Batches:
    """The batches of a Horizon.

    Args:
        horizon: whose.
    """

    def __init__(self, horizon: Horizon) -> None:
        self._horizon = horizon

    def __repr__(self) -> str:
        return f"<Batches of {self._horizon!r}>"

    # -- events ----------------------------------------------------------------------------------------------

    async def begin(self, batch_id: str, fields: Mapping[str, Any]) -> None:
        """Make a batch without jobs."""
        client = self._horizon.client
        # First the list of batches to look after: one that is named there and does not exist is taken out again.
        now = self._horizon.broker("default").now_ms()
        await client.zadd(self._open, {batch_id: now})
        await asyncio.gather(
            client.zadd(self._known, {batch_id: now}),
            client.zremrangebyscore(self._known, "-inf", now - 1000 * _KEPT),
            client.zremrangebyrank(self._known, 0, -_LISTED - 1),
        )
        await self._run(batch_id, "begin", _KEPT, *[part for pair in fields.items() for part in pair])

    async def add(self, batch_id: str, jobs: Sequence[tuple[str, str]]) -> None:
        """Add jobs, `(id, queue)`, before they are pushed."""
        if jobs:
            await self._run(batch_id, "add", *[part for pair in jobs for part in pair])

    async def seal(self, batch_id: str) -> None:
        """All jobs were added and pushed."""
        await self._follow(batch_id, await self._run(batch_id, "seal", _KEPT))

    async def end(self, batch_id: str, ended: Sequence[tuple[str, str]]) -> None:
        """Jobs have ended, `(id, state)`."""
        flat = [part for pair in ended for part in pair]
        await self._follow(batch_id, await self._run(batch_id, "end", _KEPT, *flat))

    async def noted(self, serial: int, note: bytes) -> None:
        """A completion left this in its queue's outbox; it may come more than once."""
        batch_id, job_id, state = _note(note)
        await self.end(batch_id, [(job_id, state)])

    async def stop(self, batch_id: str) -> BatchStatus:
        """Cancel what has not ended."""
        answer = await self._run(batch_id, "stop", _KEPT)
        if answer is None:
            raise self._unknown(batch_id)
        await self._follow(batch_id, answer)
        return await self.status(batch_id)

    async def listed(self, offset: int, limit: int) -> tuple[int, list[BatchStatus]]:
        """How many batches were begun in the last week, and some of them, the latest first."""
        client = self._bytes()
        total, names = await asyncio.gather(
            client.zcard(self._known), client.zrange(self._known, offset, offset + limit - 1, desc=True)
        )
        answers = await asyncio.gather(*[self._run(name.decode(), "look") for name in names])
        pairs = zip(names, answers, strict=True)
        return total, [_status(name.decode(), answer) for name, answer in pairs if answer is not None]

    # -- questions -------------------------------------------------------------------------------------------

    async def status(self, batch_id: str) -> BatchStatus:
        """How far it is."""
        answer = await self._run(batch_id, "look")
        if answer is None:
            raise self._unknown(batch_id)
        return _status(batch_id, answer)

    async def wait(self, batch_id: str, timeout: float | None) -> BatchStatus:
        """Wait until all its jobs have ended."""
        news = asyncio.Event()
        subscription = await self._horizon.client.subscribe(self._channel(batch_id), lambda _: news.set())
        try:
            async with asyncio.timeout(timeout):
                while True:
                    news.clear()
                    status = await self.status(batch_id)
                    if status.finished:
                        return status
                    try:
                        await asyncio.wait_for(news.wait(), _LOOK_AGAIN)
                    except asyncio.TimeoutError:  # noqa: UP041  # ours is another one
                        await self.reconcile(batch_id)
        except TimeoutError as error:
            if isinstance(error, errors.TimeoutError):
                raise
            raise ResultTimeoutError(f"batch {batch_id} has not ended within {timeout:g} s") from None
        finally:
            await subscription.aclose()

    # -- upkeep ----------------------------------------------------------------------------------------------

    async def look_after(self) -> None:
        """Sweep now and then, for as long as this is not cancelled."""
        while True:
            await asyncio.sleep(_SWEEP * (0.5 + random.random()))
            try:
                await self.sweep()
            except GravitoError as error:  # the server is away, perhaps; there is a next time
                log.warning("batches could not be looked after: %s", error)

    async def sweep(self, most: int = 20) -> None:
        """Reconcile the batches that were not looked after for the longest time. A worker does this now and then."""
        client = self._horizon.client
        now = self._horizon.broker("default").now_ms()
        for name in await client.zrange(self._open, 0, most - 1):
            batch_id = name.decode() if isinstance(name, bytes) else str(name)
            try:
                if (await self.reconcile(batch_id)).finished:
                    await client.zrem(self._open, batch_id)
                else:
                    await client.zadd(self._open, {batch_id: now}, xx=True)
            except UnknownJobError:
                await client.zrem(self._open, batch_id)

    async def reconcile(self, batch_id: str) -> BatchStatus:
        """Find jobs that have ended without a note, among some of those that are left, and do what is owed."""
        answer = await self._run(batch_id, "look")
        if answer is None:
            raise self._unknown(batch_id)
        if "sealed" in _pairs(answer[0]):  # before, jobs that nobody knows may be on their way
            for queue, ids in (await self._left(batch_id, _SAMPLE)).items():
                broker = self._horizon.broker(queue)
                looks = await asyncio.gather(*[broker.look(job_id) for job_id in ids])
                # The note of a job that is unknown by now, if there is one, arrives first, and the first word counts.
                await broker.relay()
                states = {**_COUNTED, "unknown": "lost"}
                ended = [(look.id, states[look.state]) for look in looks if look.state in states]
                if ended:
                    await self.end(batch_id, ended)
        await self._follow(batch_id, await self._run(batch_id, "look"))
        return await self.status(batch_id)

    async def _follow(self, batch_id: str, answer: list[Any] | None) -> None:
        """Do what is owed. It stays owed until it is done, and doing it twice is doing it once."""
        if answer is None:
            return
        fields = _pairs(answer[0])
        for what in [name.decode() for name in answer[2]]:
            if what == "cancel":
                await self._cancel_left(batch_id)
            else:
                await self._depart(_travel(fields[what]))
            await self._run(batch_id, "pay", what)
        if "ended" in fields:
            await self._horizon.client.publish(self._channel(batch_id), "ended")

    async def _cancel_left(self, batch_id: str) -> None:
        for queue, ids in (await self._left(batch_id)).items():
            states = await cancel(self._horizon, queue, ids)
            ended = [(job_id, state) for job_id, state in states.items() if state == "cancelled"]
            if ended:
                await self.end(batch_id, ended)

    async def _depart(self, travel: Travel) -> None:
        broker = self._horizon.broker(travel[0])
        _, envelope = _payload.depart(travel, broker.now_ms())
        await broker.push(envelope)

    async def _left(self, batch_id: str, most: int | None = None) -> dict[str, list[str]]:
        """Ids by queue; `most`: some of them, others each time."""
        key, found = self._keys(batch_id)[1], dict[str, list[str]]()
        if most is None:
            left = (await self._bytes().hgetall(key)).items()
        else:
            flat = await self._bytes().hrandfield(key, most, withvalues=True) or []
            left = zip(flat[::2], flat[1::2], strict=True) if flat and isinstance(flat[0], bytes) else flat
        for job_id, queue in left:
            found.setdefault(queue.decode(), []).append(job_id.decode())
        return found

    # -- the server ------------------------------------------------------------------------------------------

    @property
    def _open(self) -> str:
        return f"{self._horizon.settings.prefix}:batches"

    @property
    def _known(self) -> str:
        return f"{self._horizon.settings.prefix}:batches:known"

    def _keys(self, batch_id: str) -> list[str]:
        base = f"{self._horizon.settings.prefix}:{{batch:{batch_id}}}:"
        return [base + "state", base + "left", base + "failed"]

    def _channel(self, batch_id: str) -> str:
        outer = self._horizon.client.settings.key_prefix or ""
        return f"{outer}{self._horizon.settings.prefix}:{{batch:{batch_id}}}:ev"

    def _bytes(self) -> Any:
        return self._horizon.client.with_options(decode_responses=False)

    async def _run(self, batch_id: str, *args: Any) -> list[Any] | None:
        client = self._bytes()
        script = Script(client, _TEXT, "batch.lua")
        answer: list[Any] | None = await script(keys=self._keys(batch_id), args=args)
        return answer

    def _unknown(self, batch_id: str) -> UnknownJobError:
        return UnknownJobError(f"there is no batch {batch_id!r}, or no longer")


def _pairs(flat: list[bytes]) -> dict[str, bytes]:
    return {name.decode(): value for name, value in zip(flat[::2], flat[1::2], strict=True)}


def _status(batch_id: str, answer: list[Any]) -> BatchStatus:
    fields, left, _, failed = _pairs(answer[0]), answer[1], answer[2], answer[3]

    def count(name: str) -> int:
        return int(fields.get(name, 0))

    state: BatchState = "done" if "ended" in fields else "running" if "sealed" in fields else "pushing"
    if fields.get("stopped") == b"failed":
        state = "failed"
    elif fields.get("stopped") == b"cancelled":
        state = "cancelled"
    return BatchStatus(
        id=batch_id,
        name=fields.get("name", b"").decode(),
        state=state,
        total=count("total"),
        left=left,
        ok=count("ok"),
        dead=count("dead"),
        cancelled=count("cancelled"),
        discarded=count("discarded"),
        lost=count("lost"),
        failed_ids=tuple(name.decode() for name in failed),
        created=_moment(fields.get("created")),
        ended=_moment(fields.get("ended")),
        followers=tuple(_followers(fields)),
    )


def _followers(fields: Mapping[str, bytes]) -> Iterator[Follower]:
    for what in ("then", "catch", "finally"):
        if what in fields:
            queue, envelope = _travel(fields[what])
            try:
                name = _payload.read_body(envelope.body).name
            except PayloadError:  # a newer release's
                name = ""
            due = _moment(fields.get(f"said:{what}"))
            yield Follower(when=what, queue=queue, id=envelope.id, name=name, due=due)


def _moment(ms: bytes | None) -> datetime | None:
    return datetime.fromtimestamp(int(ms) / 1000, UTC) if ms else None
