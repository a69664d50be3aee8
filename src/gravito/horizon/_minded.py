"""Tasks in the background of a worker, which nobody awaits until it ends."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

__all__ = ["minded"]

_log = logging.getLogger("gravito.horizon")

_PAUSES: Final = (1.0, 5.0, 30.0)  # seconds until it begins anew; the last one again and again


async def minded(name: str, run: Callable[[], Awaitable[None]]) -> None:
    """Run it to its end. When it fails, say so and begin anew, so that it is never missing in silence.

    Args:
        name: for the log.
        run: begins it.
    """
    failures = 0
    while True:
        try:
            return await run()
        except (Exception, SystemExit):  # an exit would end the event loop from inside
            pause = _PAUSES[min(failures, len(_PAUSES) - 1)]
            failures += 1
            _log.exception("%s failed; it begins anew in %d s", name, pause)
        await asyncio.sleep(pause)
