"""What a queue has to do now, as balancing sees it."""

from __future__ import annotations

from gravito.horizon._balance import Load
from gravito.horizon._broker import Broker
from gravito.horizon._counters import BUCKETS, parse

__all__ = ["load_of"]


async def load_of(broker: Broker) -> Load:
    """Ready jobs of a queue, and the mean run time of those that ended in this minute and the one before."""
    sizes = await broker.sizes()
    minute = broker.now_ms() // 60_000
    client = broker.client.with_options(decode_responses=True)
    runs, spent = 0, 0.0
    for each in (minute - 1, minute):
        for field, count in (await client.hgetall(broker.keys.minute(each))).items():
            kind, _, place, _ = parse(str(field))
            if kind == "r":
                runs += int(count)
                spent += int(count) * BUCKETS[min(place, len(BUCKETS) - 1)]
    return Load(sum(sizes.ready) + sizes.fair, spent / runs / 1000 if runs else 0.0)
