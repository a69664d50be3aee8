"""The breaker: after some failures in a row nobody tries to connect for a while, then one attempt decides."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from gravito import errors
from gravito.atlas.config import Settings
from gravito.atlas.wire import retry
from gravito.atlas.wire.connection import Wire


class Circuit:
    """Counts how connecting goes, for all wires of a client in one loop. Without a breaker it never refuses."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._breaker = settings.breaker
        self._loop = asyncio.get_running_loop()
        self._failures = 0  # attempts that failed in a row
        self._open_until = 0.0  # loop time; until then nobody tries
        self._probing = False  # the one attempt that decides is under way

    def refusal(self) -> errors.CircuitOpenError | None:
        """Why nobody may try to connect now; None if one may."""
        if self._breaker is None or self._failures < self._breaker.failures:
            return None
        left = self._open_until - self._loop.time()
        if left <= 0 and not self._probing:
            return None
        then = f"the next attempt is in {left:.2g} s" if left > 0 else "the attempt that decides is under way"
        name, address = self._settings.name, self._settings.address
        error = errors.CircuitOpenError(
            f"connection '{name}' ({address}) failed {self._failures} times in a row; {then} (breaker)"
        )
        error.about(node=address)
        return error

    async def attempt(self, connect: Callable[[], Awaitable[Wire]]) -> Wire:
        """Connect and note how it went. Raises CircuitOpenError, or what `connect` raises."""
        refusal = self.refusal()
        if refusal is not None:
            raise refusal
        probe = self._breaker is not None and self._failures >= self._breaker.failures
        self._probing = self._probing or probe
        try:
            wire = await connect()
        except Exception as error:
            # a password that is refused says that the server is there; it only is not for us
            if not retry.is_final(error):
                self._failures += 1
            if self._breaker is not None:
                self._open_until = self._loop.time() + self._breaker.reset
            raise
        finally:
            if probe:
                self._probing = False
        self._failures = 0
        return wire
