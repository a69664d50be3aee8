"""Any sequence of moves by several workers, beside a model that a page holds: every accepted job ends exactly once."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gravito.atlas import Client
from gravito.atlas.embedded import Engine
from gravito.horizon._broker import Broker
from gravito.horizon._messages import Claimed, Done, Envelope, Limit
from gravito.testing import empty

WORKERS = ("w0", "w1", "w2")
OUTCOMES = ("ok", "ok", "retry", "dead", "release", "cancelled")
AT_ONCE = 2  # jobs that the limit lets run at a time
MOVES = (
    "push",
    "push",
    "claim",
    "claim",
    "finish",
    "finish",
    "stale",
    "expire",
    "cancel",
    "revive",
    "discard",
)

# Hypothesis chooses the seed, not the moves: its lists of moves are short and alike, and few jobs meet in them.
LENGTHS = (40, 200)


def moves(seed: int) -> list[tuple[str, int, int, int]]:
    """A plan: names of moves and three small numbers for each."""
    draw = random.Random(seed)
    names = (*MOVES, *MOVES, "again", "due", "pause", "purge")

    def number() -> int:
        return draw.randrange(12)

    return [(draw.choice(names), number(), number(), number()) for _ in range(draw.randint(*LENGTHS))]


@dataclass
class Model:
    """What the queue must think."""

    waiting: set[str] = field(default_factory=set)
    running: dict[str, tuple[str, Claimed]] = field(default_factory=dict)
    dead: set[str] = field(default_factory=set)
    kept: set[str] = field(default_factory=set)  # ended, with a result
    unique: dict[str, str] = field(default_factory=dict)  # key -> job that holds it
    wants: dict[str, str] = field(default_factory=dict)  # job -> its key
    limited: set[str] = field(default_factory=set)
    crashes: dict[str, int] = field(default_factory=dict)
    asked: set[str] = field(default_factory=set)  # running jobs that somebody cancelled
    past: list[tuple[str, Claimed]] = field(default_factory=list)  # claims that are over
    totals: dict[str, int] = field(default_factory=dict)
    paused: bool = False

    def count(self, name: str) -> None:
        self.totals[name] = self.totals.get(name, 0) + 1

    def free(self, job_id: str) -> None:
        key = self.wants.get(job_id, "")
        if self.unique.get(key) == job_id:
            del self.unique[key]

    def end(self, job_id: str, outcome: str, record: bool) -> None:
        self.count(outcome)
        self.free(job_id)
        self.asked.discard(job_id)
        if outcome == "dead":
            self.dead.add(job_id)
            return
        self.crashes.pop(job_id, None)
        self.limited.discard(job_id)
        self.wants.pop(job_id, None)
        if record:
            self.kept.add(job_id)

    def stop(self, job_id: str) -> None:
        self.past.append(self.running.pop(job_id))


class Run:
    """Carries the moves out, on the queue and on the model."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.broker = Broker(client, "q", lease_ms=600_000)
        self.model = Model()

    async def push(self, a: int, b: int, c: int) -> None:
        m, job_id = self.model, f"j{a}"
        key = f"k{b % 3}" if b < 6 else None
        limits = {0: (Limit("c", "concurrency", AT_ONCE),), 1: (Limit("r", "rate", 3, 3),)}.get(c % 4, ())
        job = Envelope(
            job_id, job_id.encode(), priority=b % 4, delay=600_000 * (c % 3 == 2), unique=key,
            tenant=f"t{c % 3}" if c > 5 else None, limits=limits,
        )  # fmt: skip
        known = job_id in m.waiting or job_id in m.running or job_id in m.dead or job_id in m.kept
        expected = "exists" if known else "unique" if key in m.unique else "new"
        pushed = await self.broker.push(job)
        assert pushed.state == expected
        assert pushed.id == (m.unique[key] if expected == "unique" and key else job_id)
        if expected == "new":
            self.accept(job_id, key, c % 4 == 0)

    def accept(self, job_id: str, key: str | None, limited: bool) -> None:
        m = self.model
        m.count("pushed")
        m.waiting.add(job_id)
        if key is not None:
            m.unique[key] = m.wants[job_id] = job_id
            m.wants[job_id] = key
        if limited:
            m.limited.add(job_id)

    async def claim(self, a: int, b: int, _c: int) -> None:
        await self.step(WORKERS[a % 3], [], b)

    async def step(self, worker: str, done: list[Done], want: int) -> None:
        m = self.model
        step = await self.broker.step(worker, done, want)
        for job in step.claimed:
            assert job.id in m.waiting, "it was claimed while it was not waiting"
            assert job.body == job.id.encode()
            assert job.crashes == m.crashes.get(job.id, 0)
            m.waiting.remove(job.id)
            m.running[job.id] = (worker, job)
        assert len(step.claimed) <= want
        assert not (m.paused and step.claimed)
        assert sum(job_id in m.limited for job_id in m.running) <= AT_ONCE
        assert not step.refused

    async def finish(self, a: int, b: int, c: int) -> None:
        m = self.model
        if not m.running:
            return
        job_id = sorted(m.running)[a % len(m.running)]
        worker, job = m.running[job_id]
        outcome, record = OUTCOMES[b % len(OUTCOMES)], c % 2 == 0
        delay = 600_000 if c % 3 == 0 and outcome in ("retry", "release") else 0
        done = Done(job_id, job.fence, outcome, b"r" if record else None, delay, name="n")  # type: ignore[arg-type]
        m.stop(job_id)
        if job_id in m.asked and outcome in ("retry", "release"):
            outcome = "cancelled"
        m.asked.discard(job_id)
        if outcome in ("retry", "release"):
            m.count(outcome)
            m.waiting.add(job_id)
        else:
            m.end(job_id, outcome, record)
        await self.step(worker, [done], c % 3)

    async def stale(self, a: int, b: int, _c: int) -> None:
        """A worker hands in what is no longer its own."""
        if not self.model.past:
            return
        worker, job = self.model.past[a % len(self.model.past)]
        step = await self.broker.step(worker, [Done(job.id, job.fence, OUTCOMES[b % 6], b"stale")], 0)  # type: ignore[arg-type]
        assert step.refused == [job.id]
        assert (await self.broker.keep(worker, [job])).lost == [job.id]

    async def expire(self, a: int, _b: int, c: int) -> None:
        """A worker has gone silent: the lease is made to end now."""
        m = self.model
        if not m.running:
            return
        fence = m.running[sorted(m.running)[a % len(m.running)]][1].fence
        ended = {str(fence): self.broker.now_ms() - 1}
        assert await self.client.zadd(self.broker.keys.part("leases"), ended, xx=True, ch=True) == 1
        await self.broker.keep(WORKERS[c % 3], [])
        for job_id in [job_id for job_id, (_, job) in m.running.items() if job.fence == fence]:
            self.crash(job_id)

    def crash(self, job_id: str) -> None:
        m = self.model
        m.stop(job_id)
        m.count("crashed")
        m.crashes[job_id] = m.crashes.get(job_id, 0) + 1
        if job_id in m.asked:
            m.end(job_id, "cancelled", record=False)
        elif m.crashes[job_id] >= 3:
            m.end(job_id, "dead", record=True)
        else:
            m.waiting.add(job_id)

    async def cancel(self, a: int, b: int, _c: int) -> None:
        m, job_id = self.model, f"j{a}"
        record = b % 2 == 0
        [state] = (await self.broker.cancel([job_id], {job_id: b"r"} if record else None)).values()
        if job_id in m.waiting:
            assert state == "cancelled"
            m.waiting.remove(job_id)
            m.end(job_id, "cancelled", record)
        elif job_id in m.running:
            assert state == "running"
            m.asked.add(job_id)
        else:
            assert state == ("dead" if job_id in m.dead else "ended" if job_id in m.kept else "unknown")

    async def again(self, a: int, _b: int, _c: int) -> None:
        """Cancelled where it waits, and pushed anew."""
        await self.push(a, 8, 1)
        await self.cancel(a, 1, 0)
        await self.push(a, 9, 1)

    async def revive(self, a: int, _b: int, _c: int) -> None:
        m, job_id = self.model, f"j{a}"
        back, held = await self.broker.retry([job_id])
        if job_id not in m.dead:
            assert (back, held) == ([], [])
            return
        key = m.wants.get(job_id)
        if key in m.unique:
            assert (back, held) == ([], [job_id])
            return
        assert (back, held) == ([job_id], [])
        m.dead.remove(job_id)
        m.waiting.add(job_id)
        m.crashes.pop(job_id, None)
        if key is not None:
            m.unique[key] = job_id

    async def discard(self, a: int, _b: int, _c: int) -> None:
        m, job_id = self.model, f"j{a}"
        known = job_id in m.dead or job_id in m.kept
        assert await self.broker.discard([job_id]) == ([job_id] if known else [])
        self.forget(job_id)

    def forget(self, job_id: str) -> None:
        m = self.model
        if job_id in m.dead:
            m.dead.remove(job_id)
            m.crashes.pop(job_id, None)
            m.wants.pop(job_id, None)
            m.limited.discard(job_id)
        m.kept.discard(job_id)

    async def due(self, _a: int, _b: int, _c: int) -> None:
        """Time goes by: what is delayed is due."""
        key = self.broker.keys.part("delayed")
        for member in await self.client.zrange(key, 0, -1):
            await self.client.zadd(key, {member: 1}, xx=True)

    async def purge(self, a: int, _b: int, _c: int) -> None:
        if a > 2:
            return
        for part in ("ready", "parked", "delayed", "ready"):
            await self.broker.purge(part)  # type: ignore[arg-type]
        for job_id in list(self.model.waiting):
            self.model.waiting.remove(job_id)
            self.model.end(job_id, "cancelled", record=False)

    async def pause(self, _a: int, _b: int, _c: int) -> None:
        self.model.paused = not self.model.paused
        await (self.broker.pause() if self.model.paused else self.broker.resume())

    async def check(self) -> None:
        m, sizes = self.model, await self.broker.sizes()
        assert sizes.totals == m.totals
        assert (sizes.running, sizes.dead, sizes.done) == (len(m.running), len(m.dead), len(m.kept))
        leases = {int(fence) for fence in await self.client.zrange(self.broker.keys.part("leases"), 0, -1)}
        assert {job.fence for _, job in m.running.values()} <= leases
        live = await self.client.hkeys(self.broker.keys.part("jobs"))
        assert set(live) == m.waiting | set(m.running) | m.dead
        holders = await self.client.hgetall(self.broker.keys.part("unique"))
        assert {key: value.partition(":")[2] for key, value in holders.items()} == m.unique

    async def drain(self) -> None:
        """Everything that waits or runs ends; then nothing is left but what every queue has."""
        m = self.model
        if m.paused:
            await self.pause(0, 0, 0)
        for _ in range(2000):
            if not m.waiting and not m.running:
                break
            await self.due(0, 0, 0)
            await self.step("w0", [], 5)
            while m.running:
                await self.finish(0, 0, 1)  # ok, without a record
        assert not m.waiting, "a job is stuck"
        for job_id in [*m.dead, *m.kept]:
            await self.broker.discard([job_id])
            self.forget(job_id)
        await self.check()
        await self.due(0, 0, 0)
        await asyncio.sleep(0.004)  # the rate limit's period
        await self.broker.keep("last", [])
        for worker in WORKERS:
            await self.broker.leave(worker)
        await self.broker.aclose()
        always = {"conf", "totals", "wake"}
        parts = {key.partition("}:")[2] for key in await self.client.keys("horizon:{*")}
        assert {part for part in parts if not part.startswith("m:")} <= always


async def check_plan(path: str, plan: list[tuple[str, int, int, int]]) -> None:
    async with Client.from_url(f"unix://{path}") as client:
        run = Run(client)
        for name, *numbers in plan:
            await getattr(run, name)(*numbers)
            await run.check()
        await run.drain()


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32))
def test_every_accepted_job_ends_exactly_once(gravito_engine: Engine, seed: int) -> None:
    path = gravito_engine.ensure()
    empty(path)
    asyncio.run(check_plan(path, moves(seed)))
