"""What every view of a cache has: the shared core, the names of its keys, and the tags that it names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gravito.stasis._names import check_key
from gravito.stasis._plan import Plan

if TYPE_CHECKING:
    from gravito.stasis._core import Core
    from gravito.stasis._policy import Policy
    from gravito.stasis._reads import Scope
    from gravito.stasis._stats import Counts

__all__ = ["View"]

_MOST_SOUGHT = 10_000
_QUICK = 200  # characters of a key that cannot be too long, however it is encoded


class View:
    """A cache as one namespace and one choice of tags see it."""

    _core: Core  # made at the first use, by `__getattr__`
    _template: str | None = None  # what its keys are counted with; None: their own groups
    _scope: Scope
    _roots: tuple[str, ...]  # the scope's; here, for the hot path
    _prefix: str  # the scope's prefix of entries
    _tags: tuple[str, ...]  # those that this view names
    _tag_keys: tuple[str, ...]  # keys of their versions
    _plan: Plan  # of these tags: what is read with an entry of which nothing else is known
    # the versions of the plan last seen, what `put` writes in front of a body then, and until when (monotonic) the
    # versions of the tags are known to stay
    _guess: tuple[list[bytes], bytes, float] | None
    _policies: dict[Any, Policy]  # by ttl and type: what calls without further options have in common
    # key -> the entry's key on the server, and with it those of the plan's versions; for keys that were used lately
    # and the counters that it is counted in
    _sought: dict[str, tuple[str, tuple[str, ...], Counts]]

    def _see(self, scope: Scope, tags: tuple[str, ...]) -> None:
        self._scope, self._plan = scope, Plan(scope, tags)
        self._roots, self._prefix = scope.roots, scope.entry
        self._tags, self._tag_keys = self._plan.tags, self._plan.tag_keys
        self._policies, self._sought = {}, {}
        self._guess = None

    def _entry(self, key: str) -> str:
        """The entry's key on the server.

        Raises:
            InvalidKeyError: the key cannot be used.
        """
        if key.__class__ is not str or not 0 < len(key) < _QUICK or not key.isprintable():
            check_key(key)
        return self._prefix + key

    def _seek(self, key: str) -> tuple[str, tuple[str, ...], Counts]:
        """What to read for a key of which nothing else is known: its entry, and that with the plan's versions.

        And what it is counted in.

        Raises:
            InvalidKeyError: the key cannot be used.
        """
        try:
            return self._sought[key]
        except (KeyError, TypeError):  # not asked for lately, or no text at all
            pass
        entry = self._entry(key)
        if len(self._sought) >= _MOST_SOUGHT:
            self._sought.clear()
        sought = self._sought[key] = entry, (entry, *self._plan.keys), self._core.counts(key, self._template)
        return sought

    def _entries(self, keys: list[str]) -> list[str]:
        """As `_entry`, of several; the usual ones are looked at together."""
        if {str}.issuperset(map(type, keys)) and keys:
            sizes = [*map(len, keys)]
            if min(sizes) and max(sizes) < _QUICK and "".join(keys).isprintable():
                prefix = self._prefix
                return [prefix + key for key in keys]
        return [self._entry(key) for key in keys]
