"""The application whose console is looked at: a job of every kind."""

from __future__ import annotations

import asyncio

import msgspec

from gravito.atlas import Client
from gravito.horizon import Horizon, JobContext, Repository, inject, job

# What would run, or be an element, if it were not escaped; short enough to be shown whole.
PLANTED = "<script>pwn()</script><b id=pwn>"

horizon = Horizon()
horizon.provide(Client, lambda: horizon.client)


@job(retries=0, tags=["greeting"])
async def greet(who: str) -> str:
    """Goes well."""
    return f"hello {who}"


@job(retries=0)
def fail(why: str) -> None:
    """Is dead after one run."""
    raise LookupError(why)


@job(retries=3, backoff=3600)
def flaky(why: str) -> None:
    """Waits for an hour after its first run."""
    raise TimeoutError(why)


@job(queue="slow", timeout=None)
async def hold(key: str, redis: Client = inject(), job: JobContext = inject()) -> str:
    """Runs until somebody sets the key."""
    job.progress(3, 10, "holding")
    while not await redis.exists(f"go:{key}"):  # noqa: ASYNC110  # another process sets it
        await asyncio.sleep(0.05)
    return key


@job(queue="limited", concurrency=1, timeout=None)
async def alone(key: str, redis: Client = inject()) -> None:
    """As `hold`, one at a time: the others are held back."""
    while not await redis.exists(f"go:{key}"):  # noqa: ASYNC110
        await asyncio.sleep(0.05)


@job(queue="limited", rate="1/h", retries=0)
def rarely() -> None:
    """Once an hour."""


@job
async def parent(job: JobContext = inject()) -> list[str]:
    """Pushes three others."""
    return [job.push(greet.make(f"child {number}")).id for number in range(3)]


PlantedError = type(PLANTED, (Exception,), {})


@job(name="planted", retries=0, tags=[PLANTED])
async def planted(text: str) -> None:
    """Has script wherever text may be."""
    raise PlantedError(text)


class Asked(msgspec.Struct, frozen=True):
    """A rule that says what stands under a key."""

    key: str

    async def check(self, repository: Repository) -> str | None:
        """Look there."""
        said: str | None = await repository.horizon.client.get(self.key)
        return said


horizon.alert("roof", Asked("alarm:roof"))
horizon.alert(PLANTED, Asked("alarm:planted"))
horizon.schedule(PLANTED, planted.make(PLANTED)).daily().at("04:00").description(PLANTED)
horizon.schedule("nightly", greet.make("the night")).daily().at("02:00").description("Says good night")
horizon.schedule("often", greet.make("the minute")).every_minute().description("Says hello")
