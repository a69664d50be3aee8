"""When a schedule fires. Pure: moments in, moments out; no clock is read here."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, time, timedelta, tzinfo
from typing import Any
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from gravito import errors

_SECOND = timedelta(seconds=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# A plan of which the windows admit nothing for so long never fires; it covers a day that comes in leap years only.
_FAR = timedelta(days=9 * 366)
_MANY = 366 * 24 * 60  # the same in fires, for plans that fire often
_DAYS = 3  # the same in days on which cron fires: it names the same times on each of them


@dataclass(frozen=True, slots=True)
class Window:
    """A part of each day; one that ends before it begins goes past midnight.

    Args:
        begin: the first moment inside.
        end: the last moment inside.
        inside: False turns it round: fires inside are left out.
    """

    begin: time
    end: time
    inside: bool = True

    def admits(self, moment: datetime) -> bool:
        """Whether a fire at this local time happens."""
        at = moment.time()
        if self.begin <= self.end:
            within = self.begin <= at <= self.end
        else:
            within = at >= self.begin or at <= self.end
        return within is self.inside


@dataclass(frozen=True, slots=True)
class Plan:
    """Cron fields or an interval, in a time zone, within windows of the day.

    Around a change of the clocks cron's habits hold: a fire at a fixed time that does not exist happens when the
    clock has jumped; one whose time comes twice happens the first time. Fires that repeat (`*/10`) go by the clock
    that passes. Intervals are counted from 1970-01-01 UTC, so every machine names the same moments.

    Args:
        cron: five fields, or six with seconds first; None for an interval.
        interval: time between two fires; None for cron.
        zone: of the fields and windows.
        windows: all must admit a fire.
    """

    cron: str | None = None
    interval: timedelta | None = None
    zone: tzinfo = UTC
    windows: tuple[Window, ...] = field(default=())

    def __post_init__(self) -> None:
        if (self.cron is None) == (self.interval is None):
            raise ValueError("a plan has either cron fields or an interval")
        if self.cron is not None:
            try:
                CronSim(self.cron, _EPOCH)
            except CronSimError as error:
                raise refuse("cron", self.cron, f"five or six cron fields ({error})") from error
        elif self.interval is not None and self.interval < _SECOND:
            raise refuse("interval", self.interval, "one second or more")

    def with_(self, **changes: Any) -> Plan:
        """The same plan with other fields."""
        return replace(self, **changes)

    def after(self, moment: datetime) -> datetime | None:
        """The first fire later than `moment`; None if there is none."""
        return next(self._fires(moment, back=False), None)

    def before(self, moment: datetime) -> datetime | None:
        """The last fire at `moment` or earlier; None if there is none."""
        return next(self._fires(moment + timedelta(microseconds=1), back=True), None)

    def between(self, since: datetime, until: datetime, limit: int) -> list[datetime]:
        """The fires later than `since`, up to `until`; the latest `limit` of them, in order."""
        fires: list[datetime] = []
        for fire in self._fires(until + timedelta(microseconds=1), back=True):
            if fire <= since or len(fires) == limit:
                break
            fires.append(fire)
        return fires[::-1]

    def _fires(self, moment: datetime, *, back: bool) -> Iterator[datetime]:
        refused, days, day = 0, 0, None
        for fire in self._moments(moment, back):
            if all(window.admits(fire) for window in self.windows):
                refused, days = 0, 0
                yield fire.astimezone(UTC)
                continue
            refused += 1
            if fire.date() != day:
                day, days = fire.date(), days + 1
            if refused > _MANY or abs(fire - moment) > _FAR or (self.cron is not None and days > _DAYS):
                return

    def _moments(self, moment: datetime, back: bool) -> Iterator[datetime]:
        if self.interval is not None:
            return self._intervals(self.interval, moment, back)
        return iter(CronSim(str(self.cron), _whole(moment.astimezone(self.zone), back), reverse=back))

    def _intervals(self, interval: timedelta, moment: datetime, back: bool) -> Iterator[datetime]:
        count, rest = divmod(moment - _EPOCH, interval)
        step = -1 if back else 1
        at = count if not back or rest else count - 1
        if not back:
            at += 1
        while True:
            try:
                yield (_EPOCH + at * interval).astimezone(self.zone)
            except OverflowError:
                return
            at += step


def _whole(moment: datetime, back: bool) -> datetime:
    """Cron knows whole seconds; a part of one belongs to the past when one looks ahead, and the other way round."""
    if back and moment.microsecond:
        return (moment.astimezone(UTC).replace(microsecond=0) + _SECOND).astimezone(moment.tzinfo)
    return moment.replace(microsecond=0)


def clock(text: str) -> time:
    """A time of the day from "02:00", "2:00" or "02:00:30".

    Raises:
        ConfigurationError: the text is no time.
    """
    try:
        hour, minute, second = (
            int(part) for part in (text if text.count(":") == 2 else f"{text}:0").split(":")
        )
        return time(hour, minute, second)
    except (ValueError, AttributeError) as error:
        raise refuse("time", text, 'a time of the day, as "02:00" or "02:00:30"') from error


def zone(name: str | tzinfo) -> tzinfo:
    """A time zone by its IANA name.

    Raises:
        ConfigurationError: no such zone.
    """
    if isinstance(name, tzinfo):
        return name
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError, TypeError) as error:  # also when the machine has no such file
        raise refuse("timezone", name, 'an IANA name, as "Asia/Taipei"') from error


def refuse(field_: str, value: object, allowed: str) -> errors.ConfigurationError:
    """The error for a part of a schedule that cannot be used."""
    return errors.ConfigurationError(
        f"schedule: {field_} is {value!r}; allowed: {allowed}", field=field_, value=value, allowed=allowed
    )
