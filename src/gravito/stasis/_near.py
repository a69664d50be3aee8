"""Hits of the local tier: what was decoded once is kept beside the copy of the bytes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from gravito.atlas.wire.kept import weigh
from gravito.errors import UnreadableValueError
from gravito.stasis._codec import LATER, Codec
from gravito.stasis._copies import copier

if TYPE_CHECKING:
    from gravito.atlas.tracking import Tracked
    from gravito.atlas.wire.kept import Kept
    from gravito.stasis._plan import Plan

__all__ = ["Near"]

_LEAST_HITS: Final = 2  # what is read once need not be made ready for the next time


class Near:
    """Finds values in the tier of a client.

    Args:
        tracked: has the copies.
        codec: reads them.
    """

    def __init__(self, tracked: Tracked, codec: Codec) -> None:
        self._copies = tracked.copies
        self._attach = tracked.attach
        self._decode = codec.decode_now

    def find(self, keys: Sequence[str], entry: str, plan: Plan, type: Any) -> Any:
        """The value of an entry, if all that it takes is here; else LATER. Nothing is awaited or sent.

        Args:
            keys: the entry's and the plan's.
            entry: the entry's key.
            plan: what the entry is expected to depend on.
            type: see `Codec.decode`.
        """
        copies = self._copies(keys)
        if copies is None:
            return LATER
        kept, *behind = copies
        made = kept.made
        if (
            made is not None and made[0] == behind and made[1] is type
        ):  # the copies that it was found live with
            return made[2]()
        raw = kept.value
        if raw is None or not plan.matches(raw, [each.value for each in behind]):
            return LATER
        try:
            value = self._decode(raw, entry, type, plan.body)
        except UnreadableValueError:  # the usual way says why
            return LATER
        if made is None and value is not LATER and kept.hits >= _LEAST_HITS:
            return self._kept(kept, behind, value, type)
        return value

    def _kept(self, kept: Kept, behind: list[Kept], value: Any, type: Any) -> Any:
        """Keep a decoded value if it can be given to many; what the first of them gets."""
        copy = copier(value)
        if copy is None:
            self._attach(kept, ((), None, None), 0)  # so that nobody tries again
            return value
        self._attach(kept, (behind, type, copy), weigh(value))
        return copy()
