"""What a worker process of the rows works on: `gravito horizon work tests.faults.worker:horizon`."""

from __future__ import annotations

import os
import time

import msgspec
from tests.faults.application import LEASE, SETTINGS, SKEW  # and its jobs are known by that

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
