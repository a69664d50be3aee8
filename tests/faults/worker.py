"""What a worker process of the rows works on: `gravito horizon work tests.faults.worker:horizon`."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import msgspec
from tests.faults.application import HOLD, LEASE, SETTINGS, SKEW  # and its jobs are known by that

from gravito.atlas import Client, Settings, Timeouts
from gravito.horizon import Horizon, HorizonSettings

if skew := float(os.environ.get(SKEW, "0")):
    _time = time.time
    time.time = lambda: _time() + skew

_fields = msgspec.json.decode(os.environ[SETTINGS])
_fields["nodes"] = tuple(_fields.get("nodes", ()))
horizon = Horizon(
    Client(Settings(timeouts=Timeouts(connect=2.0, command=5.0, drain=1.0), **_fields)),
    settings=HorizonSettings(lease=float(os.environ.get(LEASE, "10"))),
)


@horizon.on_startup
async def hold() -> None:
    """A process takes a while to start: what is to be claimed at a certain moment waits for it here."""
    while HOLD in os.environ and not Path(os.environ[HOLD]).exists():  # noqa: ASYNC110, ASYNC240  # set by nobody here
        await asyncio.sleep(0.01)
