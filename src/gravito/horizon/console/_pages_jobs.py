"""Pages of jobs: the list with its search, the running ones, and one job."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final, cast

import msgspec
from starlette.responses import RedirectResponse, Response

from gravito.errors import PayloadError, UnknownJobError
from gravito.horizon._acts import ALLOWED
from gravito.horizon._batches import BatchStatus
from gravito.horizon._chains import ChainPart
from gravito.horizon._heartbeat import WorkerRecord
from gravito.horizon._index import State, seal_mark
from gravito.horizon._keys import check_id, check_queue
from gravito.horizon._messages import Sizes
from gravito.horizon._rows import Filter, JobDetail, JobRow
from gravito.horizon.console._actions import WORDS, read_filter
from gravito.horizon.console._format import duration, percent
from gravito.horizon.console._overview import fingerprint
from gravito.horizon.console._site import Ask, NotFoundError, Site
from gravito.horizon.context import Progress
from gravito.horizon.repository import Repository

__all__ = ["Family", "Listing", "before", "job", "jobs", "list_jobs", "running", "running_values"]

STATES: Final[tuple[State, ...]] = ("running", "ready", "delayed", "parked", "done", "dead")
LABELS: Final = {"all": "all", "parked": "held back", "done": "ended"}  # where they differ from the names
SIZE: Final = 50  # rows of a page
_LOOKS: Final = 2  # at the lists: a job may slip from one to another meanwhile
RUNNING: Final = 200  # rows of the running jobs
_PATIENCE: Final = 0.12  # seconds that one page searches, before it shows what it has and offers to go on
_SLACK: Final = timedelta(minutes=5)
_TIMED: Final = ("delayed", "done", "dead")  # states that are ordered by time
_START: Final = seal_mark(
    ("", None)
)  # with a mark the repository searches; this one is in front of everything
# The state that a job's own word for it is listed under.
_LISTED: Final = {"ok": "done", "cancelled": "done"}


class Listing(msgspec.Struct, frozen=True, kw_only=True):
    """What a page of the list shows.

    Args:
        rows: jobs.
        total: how many there are without the conditions of a search.
        offset: jobs in front of them; None for a search, which goes on by its mark.
        mark: of what follows in a search; None at the end.
        seen: how many jobs the search has looked at, over all its pages so far.
    """

    rows: list[JobRow]
    total: int
    offset: int | None = None
    mark: str | None = None
    seen: int = 0

    @property
    def complete(self) -> bool:
        """No job went from a list that was not read yet to one that had been."""
        return self.offset is None or len(self.rows) >= min(SIZE, self.total - self.offset)


async def jobs(ask: Ask) -> Response:
    """Jobs of one state, or of all; with conditions a search through every one of them."""
    state = ask.choice("state", ("all", *STATES))
    queue = check_queue(ask.text("queue")) if ask.text("queue") else None
    missing = ""
    if wanted_id := ask.text("id"):
        found = await _found(ask.repository, wanted_id, queue)
        if found is not None:
            return RedirectResponse(ask.visit.url(f"/jobs/{found.queue}/{found.id}"), 303)
        missing = wanted_id
    wanted = read_filter(ask.text)
    for _ in range(_LOOKS):
        sizes = await ask.repository.sizes()
        counts = count_states([one for name, one in sizes.items() if queue in (None, name)])
        listing = await _listing(ask, state, queue, wanted, counts)
        if listing.complete:
            break
    query = {"state": state, "queue": queue, **given(ask)}
    plain = ask.choice("plain", ("", "1"))  # the rows alone, for a part of another page
    return ask.render(
        "found.html" if plain else "jobs.html",
        plain=plain,
        listing=listing,
        state=state,
        states=("all", *STATES),
        labels=LABELS,
        counts=counts,
        queue=queue or "",
        queues=list(sizes),
        names=sorted(ask.horizon.jobs),
        query=query,
        fields=given(ask),
        narrowed=bool(given(ask)),
        missing=missing,
        size=SIZE,
        words=WORDS,
        doable=[do for do in WORDS if state == "all" or state in ALLOWED[cast("Any", do)]],
    )


def given(ask: Ask) -> dict[str, str]:
    """The conditions of a search, as they were written."""
    return {name: ask.text(name) for name in Filter.__struct_fields__ if ask.text(name)}


async def _found(repository: Repository, job_id: str, queue: str | None) -> JobDetail | None:
    try:
        return await repository.job(check_id(job_id), queue)
    except PayloadError:  # no id
        return None


def count_states(sizes: Sequence[Sizes]) -> dict[str, int]:
    """How many jobs of each state some queues have together."""
    counts: dict[str, int] = {
        part: sum(getattr(one, part) for one in sizes) for part in STATES if part != "ready"
    }
    return counts | {"ready": sum(sum(one.ready) + one.fair for one in sizes)}


async def _listing(
    ask: Ask, state: str, queue: str | None, wanted: Filter, counts: Mapping[str, int]
) -> Listing:
    is_timed = wanted == Filter() or (not wanted.looks_inside and state in _TIMED)
    if is_timed and not ask.text("mark"):
        if state == "all":
            return await _all(ask.repository, queue, ask.number("offset"), counts)
        return await _leafed(ask.repository, state, queue, wanted, ask.number("offset"))
    return await list_jobs(ask.repository, state, queue, wanted, ask.text("mark"), ask.number("seen"))


async def _leafed(
    repository: Repository, state: str, queue: str | None, wanted: Filter, offset: int
) -> Listing:
    """A page of one state, by offset."""
    page = await repository.jobs(cast("State", state), queue, offset=offset, limit=SIZE, filter=wanted)
    return Listing(rows=page.jobs, total=page.total, offset=offset)


async def _all(repository: Repository, queue: str | None, offset: int, counts: Mapping[str, int]) -> Listing:
    """A page of all states, one behind the other; those that are not on it are not asked for."""
    rows: list[JobRow] = []
    skip = offset
    for state in STATES:
        if counts[state] > skip and len(rows) < SIZE:
            page = await repository.jobs(state, queue, offset=skip, limit=SIZE - len(rows))
            rows += page.jobs
        skip = max(0, skip - counts[state])
    return Listing(rows=rows, total=sum(counts.values()), offset=offset)


async def list_jobs(
    repository: Repository, state: str, queue: str | None, wanted: Filter, mark: str = "", seen: int = 0
) -> Listing:
    """A page of a search.

    Args:
        repository: where.
        state: one, or "all".
        queue: of this one; None for all.
        wanted: its conditions.
        mark: of the page before: the state at which that one ended, and what the repository gave.
        seen: as the page before says.
    """
    first, _, inner = mark.partition(".")
    states = list(STATES if state == "all" else (state,))
    if first in states:
        states = states[states.index(first) :]
    end = time.monotonic() + _PATIENCE
    rows: list[JobRow] = []
    total = 0
    while states and len(rows) < SIZE and time.monotonic() < end:
        page = await repository.jobs(
            cast("State", states[0]), queue, limit=SIZE - len(rows), filter=wanted, mark=inner or _START
        )
        rows, total, seen = rows + page.jobs, max(total, page.total), seen + page.scanned
        inner = page.mark or ""
        if not inner:
            states = states[1:]
    return Listing(rows=rows, total=total, seen=seen, mark=f"{states[0]}.{inner}" if states else None)


# -- running jobs ----------------------------------------------------------------------------------------------


async def running(ask: Ask) -> Response:
    """What runs now, and for how long."""
    age = 4.0 * ask.again  # seconds: jobs come and go, and as many pages read themselves anew as are open
    workers = await ask.site.lately("workers", min(age, 2.0), ask.repository.workers)
    total, rows, told = await ask.site.lately("running", age, lambda: _running(ask.repository))
    value = await ask.site.lately("running values", age, lambda: running_values(ask.site, workers))
    return ask.render(
        "running.html",
        rows=rows,
        total=total,
        attempts={one.id: one.attempt for worker in workers for one in worker.jobs},
        told=told,
        value=value,
        live=ask.visit.url("/live/running"),
        # of these rows: workers may say so a little later, and until then the page is not what they say
        shape=fingerprint(sorted(row.id for row in rows)),
    )


async def _running(repository: Repository) -> tuple[int, list[JobRow], dict[str, Progress]]:
    """How many jobs run, some of them, and how far these are."""
    page = await repository.jobs("running", limit=RUNNING)
    rows = [row for row in page.jobs if row.state == "running"]
    return page.total, rows, await repository.progress([(row.queue, row.id) for row in rows])


async def running_values(site: Site, workers: list[WorkerRecord]) -> dict[str, str]:
    """For how long each job runs, and how far it is, as the workers say: they cost the queues nothing."""
    now = site.horizon.broker("default").now_ms()
    begun = [one for worker in workers for one in worker.jobs][:RUNNING]
    told = await site.repository.progress([(one.queue, one.id) for one in begun])
    values = {"shape": fingerprint(sorted(one.id for one in begun))}
    for one in begun:
        values[f"r.{one.id}.age"] = duration(max(0, now - one.since) / 1000)
        values[f"r.{one.id}.progress"] = said_progress(told.get(one.id))
    return values


def said_progress(told: Progress | None) -> str:
    """What a job tells of how far it is, in a line."""
    if told is None:
        return ""
    done, total, note = told
    share = f"{done:g} of {total:g} ({percent(done / total)})" if total else percent(done)
    return f"{share}, {note}" if note else share


# -- one job ---------------------------------------------------------------------------------------------------


async def job(ask: Ask) -> Response:
    """All that is known of one job."""
    queue, job_id = check_queue(ask.place("queue")), ask.place("id")
    found = await _found(ask.repository, job_id, queue)
    if found is None:
        raise NotFoundError(f"There is no job {job_id!r} in {queue}, or no longer.")
    state = _LISTED.get(found.state, found.state)
    family = await _family(ask.repository, found)
    return ask.render(
        "job.html",
        job=found,
        doable=[do for do in ("retry", "run_now", "cancel", "delete") if state in ALLOWED[cast("Any", do)]],
        words=WORDS,
        progress=said_progress(found.progress),
        share=share_of(found),
        known=found.name in ask.horizon.jobs,
        family=family,
        begun=before(found.pushed),
    )


class Family(msgspec.Struct, frozen=True, kw_only=True):
    """What a job belongs to; None for what there is none of, or what is no longer kept."""

    parent: JobDetail | None = None
    chain: ChainPart | None = None
    batch: BatchStatus | None = None


async def _family(repository: Repository, found: JobDetail) -> Family:
    async def batch() -> BatchStatus | None:
        try:
            return await repository.batch(found.batch) if found.batch else None
        except UnknownJobError:
            return None

    async def nothing() -> None:
        return None

    parent, chain, whole = await asyncio.gather(
        repository.job(found.parent) if found.parent else nothing(),
        repository.chain_near(found.chain, found.id) if found.chain else nothing(),
        batch(),
    )
    return Family(parent=parent, chain=chain, batch=whole)


def before(moment: datetime | None) -> str:
    """A bound for a search of what came behind a moment, as an address has it; clocks may differ by some minutes."""
    return "" if moment is None else (moment - _SLACK).strftime("%Y-%m-%dT%H:%M:%S")


def share_of(found: JobDetail) -> float | None:
    """How far a job is, from 0 to 1; None if it does not say."""
    told = found.progress
    return None if told is None else max(0.0, min(1.0, told[0] / (told[1] or 1.0)))
