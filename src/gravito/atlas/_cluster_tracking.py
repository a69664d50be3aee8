"""`client.tracked()` on a cluster: each node's wire has a tier, and a key's tier is that of its slot's node."""

from __future__ import annotations

from typing import Any, cast

from gravito.atlas import _fanout
from gravito.atlas._cluster_client import ClusterClient
from gravito.atlas.topology._tiers import NodeTiers
from gravito.atlas.topology.slots import slot_of
from gravito.atlas.tracking import Tracked
from gravito.atlas.wire.entry import Entry, Spec
from gravito.atlas.wire.flight import Read
from gravito.atlas.wire.resp import encode
from gravito.atlas.wire.tier import Tier


class TrackedCluster(Tracked, ClusterClient):  # type: ignore[misc]  # redis-py's mixins disagree among themselves
    """A cluster's client whose reads of single keys are kept here; made by `ClusterClient.tracked`."""

    def _tier(self, key: bytes) -> Tier | None:
        return cast(NodeTiers, self._cluster.tier).of(slot_of(key))

    def _ask_many(
        self, spec: Spec, missing: list[str], values: list[Any], names: tuple[Any, ...], text: bool
    ) -> Entry | None:
        """One MGET for each slot, all in this loop turn."""
        by_slot: dict[int, list[str]] = {}
        for name in missing:
            by_slot.setdefault(slot_of(name), []).append(name)
        parts: list[tuple[Tier, Read]] = []
        for some in by_slot.values():
            packed, keys = encode(("MGET", *some)), tuple(name.encode() for name in some)
            tier = self._tier(keys[0])
            if tier is None or len(packed) > self._lease_over:
                return None
            parts.append((tier, Read(packed, keys, text, many=tuple(some))))
        children = [tier.miss(read, self._waiter(read.packed, spec, None, text)) for tier, read in parts]

        async def join() -> list[Any]:
            replies = await _fanout.all_of(children)
            found = {
                name: value
                for (_, read), some in zip(parts, replies, strict=True)
                for name, value in zip(read.many, some, strict=True)
            }
            return [found.get(name, value) for name, value in zip(names, values, strict=True)]

        return _fanout.start(self._waiter(b"", spec, None, text), join())
