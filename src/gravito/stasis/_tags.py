"""A cache as seen with some tags named."""

from __future__ import annotations

from gravito.stasis._computed import Computed

__all__ = ["TaggedCache"]


class TaggedCache(Computed):
    """What is stored through it bears its tags, and goes when one of them is flushed.

    Made by `Cache.tags`. Reading through it is reading without it: naming the tags saves a question at most.
    """

    def __repr__(self) -> str:
        return f"<TaggedCache '{self._scope.prefix}' {', '.join(self._tags)}>"

    async def flush(self) -> None:
        """Forget everything that bears one of the tags: one write, however many keys that is.

        It also ends what is being computed under them.

        Raises:
            ConnectionError, TimeoutError: the store could not be asked; the keys may still be there. Always raised:
                a lost invalidation is never silent.
        """
        core = self._core
        try:
            # Who computes now looks at the version of all flushes last, so that one has to go first: in one command
            # on one server, in two on a cluster.
            if core.spread:
                await core.store.forget((self._scope.flushed,))
                await core.store.forget(self._tag_keys)
            else:
                await core.store.forget((self._scope.flushed, *self._tag_keys))
        except Exception as error:
            core.lost(error, self._tags[0], quiet=True)
            raise
        core.tallies.of(self._tags[0]).flushes += 1
        if core.events.flush:
            core.events.tell("flush", tags=self._tags)
