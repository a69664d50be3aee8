"""Deep pages over several queues are those that leafing through all of them would come to."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from gravito.atlas import Client
from gravito.horizon._broker import Broker
from gravito.horizon._index import Timed
from gravito.horizon._merge import merged

HOUR = 3_600_000  # ms
SPREADS: dict[str, Callable[[random.Random], int]] = {
    "evenly": lambda draw: draw.randrange(HOUR),
    "all at once": lambda draw: 7,
    "few moments": lambda draw: draw.choice([0, 5, 6, HOUR]),
    "mostly late": lambda draw: HOUR - int(draw.expovariate(0.01)),
    "mostly early, one long ago": lambda draw: draw.choice([-10 * HOUR, *[draw.randrange(50)] * 30]),
}


@pytest.mark.parametrize("part", ["done", "delayed"])
@pytest.mark.parametrize("spread", SPREADS)
async def test_a_page_is_the_same_at_every_depth(redis: Client, part: str, spread: str) -> None:
    draw = random.Random(spread)
    sign = 1 if part == "delayed" else -1
    indexes, every = [], []
    for number, size in enumerate((0, 400, 1, 333, 150)):
        broker = Broker(redis, f"q{number}")
        members = {f"2job{n:03}": 10**12 + SPREADS[spread](draw) for n in range(size)}
        if members:
            await redis.zadd(broker.keys.part(part), members)
        ordered = sorted(members.items(), key=lambda pair: (pair[1], pair[0]), reverse=sign < 0)
        names = [(sign * at, number, place, name) for place, (name, at) in enumerate(ordered)]
        every += [(*rest, name[1:] if part == "delayed" else name) for *rest, name in names]
        indexes.append(Timed(broker, part))
    every.sort()
    wanted = [(f"q{number}", name) for _, number, _, name in every]
    for offset in [
        0,
        49,
        50,
        51,
        120,
        399,
        400,
        401,
        883,
        884,
        900,
        *[draw.randrange(884) for _ in range(12)],
    ]:
        page = await merged(indexes, offset, 30, len(every))
        assert [(broker.queue, name) for broker, name in page] == wanted[offset : offset + 30], offset


async def test_a_deep_page_takes_few_commands(redis: Client) -> None:
    draw, indexes = random.Random(1), []
    for number in range(10):
        broker = Broker(redis, f"q{number}")
        days = {f"{n:05}": 10**12 + draw.randrange(30 * 24 * HOUR) for n in range(2000)}
        await redis.zadd(broker.keys.part("dead"), days)
        indexes.append(Timed(broker, "dead"))
    await redis.config_resetstat()
    assert len(await merged(indexes, 13_000, 50, 20_000)) == 50
    said = await redis.info("commandstats")
    calls = sum(one["calls"] for name, one in said.items() if name.startswith("cmdstat_z"))
    assert calls <= 10 * 15, "a search by halves alone would take ten times 31 of them, and more"
