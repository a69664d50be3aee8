"""The application of `gravito horizon demo`: what its worker processes run."""

from __future__ import annotations

import asyncio
import hashlib
import os

from gravito.atlas import Client
from gravito.horizon import Call, Horizon, HorizonSettings, Retention, current_job

__all__ = ["KINDS", "QUEUES", "calls", "horizon"]

QUEUES = ("mail", "media", "default")

horizon = Horizon(
    # the demonstration's own engine; without the variable, none is to be found
    Client.from_url(os.environ.get("GRAVITO_DEMO_URL", "redis://127.0.0.1:1")),
    # a short lease: the jobs of a killed worker come back in three seconds; records of all jobs are looked at in the end
    settings=HorizonSettings(prefix="demo", lease=3.0, keep=Retention(done=1_000_000)),
)


@horizon.job(queue="mail", timeout=30, tags=("mail",))
async def send_mail(number: int) -> None:
    """An async job: 300 of them run side by side."""
    await asyncio.sleep(0.02)


@horizon.job(queue="media")
def make_thumbnail(number: int) -> str:
    """A plain function, which runs in a thread."""
    return hashlib.blake2b(number.to_bytes(4, "big") * 20_000).hexdigest()


@horizon.job(retries=5, backoff=0.2)
async def fetch_page(number: int) -> int:
    """It fails at the first attempt now and then, and is tried again."""
    await asyncio.sleep(0.02)
    if number % 4 == 0 and current_job().attempt == 1:
        raise ConnectionError("the other side hung up")
    return number


@horizon.job(priority="high")
async def remind(number: int) -> None:
    """It was pushed with a delay."""


@horizon.job(retries=1, backoff=0.1)
async def import_row(number: int) -> None:
    """It can never work: after its second attempt it is kept among the dead."""
    raise ValueError(f"row {number} has no name")


# Of a hundred jobs, so many of each kind.
KINDS = ((send_mail, 60), (make_thumbnail, 15), (fetch_page, 18), (remind, 5), (import_row, 2))


def calls(jobs: int) -> list[Call[object]]:
    """The jobs of the demonstration, well mixed; dead ones are to be two of a hundred."""
    found: list[Call[object]] = []
    for number in range(jobs):
        place = (number * 37) % 100
        for job, share in KINDS:
            if place < share:
                chosen = job.delay(0.5 + number % 20 / 10) if job is remind else job
                found.append(chosen.make(number))
                break
            place -= share
    return found
