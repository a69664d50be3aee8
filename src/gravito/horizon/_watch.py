"""Looks at the alerts' rules, in turns with everybody else who does, and tells what changed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import msgspec

from gravito.errors import GravitoError
from gravito.horizon.alerts import Alert, Message
from gravito.horizon.repository import Repository

if TYPE_CHECKING:
    from gravito.horizon.horizon import Horizon

__all__ = ["AlertState", "AlertWatch", "read_alerts"]

_log = logging.getLogger("gravito.horizon")

EVERY: Final = 15.0  # seconds between two looks, over all processes
_PATIENCE: Final = 30.0  # seconds that a channel gets to tell something
_CLAIM: Final = (
    60_000  # ms that an alert is kept for whoever tells it; longer than all that its telling takes
)


class AlertState(msgspec.Struct, frozen=True, kw_only=True):
    """An alert that is firing.

    Args:
        since: epoch ms of its beginning, by the server's clock.
        told: epoch ms of the last message that got through; 0 before the first.
        text: what is the matter.
    """

    since: int
    told: int = 0
    text: str = ""


class AlertWatch:
    """Watches the alerts of a Horizon until it is cancelled.

    Args:
        horizon: whose.
        every: seconds between two looks.
    """

    def __init__(self, horizon: Horizon, every: float = EVERY) -> None:
        self._horizon = horizon
        self._every = every
        self._repository = Repository(horizon)

    async def run(self) -> None:
        """Look, again and again."""
        while True:
            try:
                if self._horizon.alerts and await self._is_our_turn():
                    await self.look()
            except GravitoError as error:
                _log.debug("alerts cannot be watched now: %s", error)
            except Exception:
                _log.exception("alerts cannot be watched")
            await asyncio.sleep(self._every)

    async def _is_our_turn(self) -> bool:
        key = f"{_base(self._horizon)}turn"
        # a little shorter than the pause, so that the same process may be the next one, too
        return bool(await self._horizon.client.set(key, "1", nx=True, px=int(self._every * 900)))

    async def look(self) -> None:
        """Check every rule once, and tell what has to be told."""
        states = await read_alerts(self._horizon)
        for alert in self._horizon.alerts.values():
            try:
                text = await alert.rule.check(self._repository)
            except GravitoError:
                raise
            except Exception:  # a rule of the user's own
                _log.exception("alert %r: its rule failed", alert.name)
                continue
            await self._judge(alert, text, states.get(alert.name))

    async def _judge(self, alert: Alert, text: str | None, state: AlertState | None) -> None:
        now = await self._now()
        if text is None and state is None:
            return
        if text is not None and not _is_due(alert, state, now):
            assert state is not None
            if text != state.text:
                await self._note(alert, msgspec.structs.replace(state, text=text))
            return
        # A look that takes long, as by a slow receiver, lasts beyond its turn: the next one must not tell it, too.
        client, claim = self._horizon.client, f"{_base(self._horizon)}telling:{alert.name}"
        if not await client.set(claim, "1", nx=True, px=_CLAIM):
            return
        try:
            await self._settle(alert, text, (await read_alerts(self._horizon)).get(alert.name), now)
        finally:
            await client.delete(claim)

    async def _settle(self, alert: Alert, text: str | None, state: AlertState | None, now: int) -> None:
        """Tell what is to be told by the state as it is now, and note it."""
        if text is None:
            if state is not None and (not state.told or await self._tell(alert, "resolved", state)):
                await self._horizon.client.hdel(f"{_base(self._horizon)}firing", alert.name)
            return
        firing = AlertState(since=now, text=text)
        if state is not None:
            firing = msgspec.structs.replace(state, text=text)
        if _is_due(alert, state, now) and await self._tell(alert, "firing", firing):
            firing = msgspec.structs.replace(firing, told=now)
        await self._note(alert, firing)

    async def _note(self, alert: Alert, firing: AlertState) -> None:
        key = f"{_base(self._horizon)}firing"
        await self._horizon.client.hset(key, alert.name, msgspec.json.encode(firing).decode())

    async def _now(self) -> int:
        seconds, micros = await self._horizon.client.time()
        return int(seconds) * 1000 + int(micros) // 1000

    async def _tell(self, alert: Alert, state: Any, firing: AlertState) -> bool:
        """Whether a channel took it; a message that none took is tried again at the next look."""
        message = Message(alert=alert.name, state=state, text=firing.text, since=firing.since)
        _log.warning("alert %s is %s: %s", alert.name, state, firing.text)
        answers = await asyncio.gather(
            *[asyncio.wait_for(channel.send(message), _PATIENCE) for channel in alert.channels],
            return_exceptions=True,
        )
        for channel, answer in zip(alert.channels, answers, strict=True):
            if isinstance(answer, Exception):
                why = str(answer) or type(answer).__name__
                _log.error("alert %s could not be sent to %r: %s", alert.name, channel, why)
        return not answers or any(not isinstance(answer, BaseException) for answer in answers)


def _is_due(alert: Alert, state: AlertState | None, now: int) -> bool:
    return state is None or not state.told or now - state.told >= alert.repeat * 1000


async def read_alerts(horizon: Horizon) -> Mapping[str, AlertState]:
    """The alerts that are firing, by name."""
    client: Any = horizon.client.with_options(decode_responses=True)
    found = await client.hgetall(f"{_base(horizon)}firing")
    return {name: msgspec.json.decode(text, type=AlertState) for name, text in found.items()}


def _base(horizon: Horizon) -> str:
    return f"{horizon.settings.prefix}:{{gravito.alerts}}:"
