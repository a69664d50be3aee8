"""Waiting for jobs to end: a message where one comes, a question now and then where none does."""

from __future__ import annotations

import asyncio
import secrets
from typing import Final

from gravito.atlas.client import Client
from gravito.atlas.subscription import Subscription
from gravito.horizon._keys import Keys
from gravito.horizon._scripts import Caller
from gravito.horizon._turns import Together

__all__ = ["Endings"]

_EVERY: Final = 2.0  # seconds between two questions; messages may be lost with their connection


class Endings:
    """Tells when jobs of a queue have ended, to one event loop.

    Args:
        client: for the messages.
        keys: the queue's.
        caller: for the questions.
    """

    def __init__(self, client: Client, keys: Keys, caller: Caller) -> None:
        self._client = client
        self._keys = keys
        self._caller = caller
        self._name = secrets.token_urlsafe(9)  # of this listener, on the server
        self._questions = Together(self._ask)
        self._waiting: dict[str, set[asyncio.Future[str]]] = {}  # by job
        self._subscription: Subscription | None = None
        self._subscribing = asyncio.Lock()

    async def wait(self, job_id: str) -> str:
        """Wait for a job's end, as long as that takes.

        Returns:
            ok, dead or cancelled; unknown if the queue knows no such job (any more).
        """
        await self._subscribe()
        future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(job_id, set()).add(future)
        state = "waiting"
        try:
            while state == "waiting":
                state = await self._questions.ask(job_id)
                if state == "waiting":
                    await asyncio.wait([future], timeout=_EVERY)
                if future.done():
                    return future.result()
            return state
        finally:
            await self._leave(job_id, future, state)

    async def aclose(self) -> None:
        """Listen no longer."""
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            await subscription.aclose()

    async def _subscribe(self) -> None:
        async with self._subscribing:
            if self._subscription is None:
                self._subscription = await self._client.subscribe(self._keys.answers(self._name), self._heard)

    def _heard(self, message: str | bytes) -> None:
        text = message.decode() if isinstance(message, bytes) else message
        job_id, _, state = text.partition(" ")
        for future in self._waiting.get(job_id, ()):
            if not future.done():
                future.set_result(state)

    async def _ask(self, ids: list[str]) -> list[str]:
        _, *states = await self._caller.run("await", (self._name, ids, False))
        return [state.decode() for state in states]

    async def _leave(self, job_id: str, future: asyncio.Future[str], state: str) -> None:
        others = self._waiting[job_id]
        others.discard(future)
        if others:
            return
        del self._waiting[job_id]
        if state == "waiting" and not future.done():  # it goes before the job has ended
            await self._caller.run("await", (self._name, [job_id], True), patience=0.0)
