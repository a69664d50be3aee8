"""Whether a Horizon was given what it takes: told where it is made, not at the first push."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

from gravito.errors import ConfigurationError
from gravito.horizon.call import Call
from gravito.horizon.middleware import Middleware
from gravito.horizon.settings import HorizonSettings

__all__ = ["check_middleware", "check_settings", "pass_by"]


def check_settings(settings: object) -> None:
    """Refuse what are no settings.

    Raises:
        ConfigurationError: they are none.
    """
    if settings is not None and not isinstance(settings, HorizonSettings):
        raise _wrong("settings", settings, "HorizonSettings(...)")


def check_middleware(middleware: Any) -> None:
    """Refuse what is no list of middleware, and a hook that cannot work.

    Raises:
        ConfigurationError: names what was given, and what is allowed.
    """
    allowed = "a list of objects whose class derives from Middleware, as middleware=[Timed()]"
    if not isinstance(middleware, Sequence):
        raise _wrong("middleware", middleware, allowed)
    for item in middleware:
        if not isinstance(item, Middleware):
            raise _wrong("middleware", item, allowed)
        if inspect.iscoroutinefunction(item.pushing):
            raise _wrong(
                f"{type(item).__qualname__}.pushing", "async", "a plain `def`, which returns the call"
            )


def pass_by(hook: Callable[[Call[Any]], object], call: Call[Any]) -> Call[Any]:
    """The call, as a hook `pushing` wants it.

    Raises:
        ConfigurationError: it returned something else.
    """
    changed = hook(call)
    if not isinstance(changed, Call):
        name = getattr(hook, "__qualname__", hook)
        allowed = "the call, or a changed one, as `return call.tags(...)`"
        message = f"the middleware hook {name} returned {changed!r}; it has to return {allowed}"
        raise ConfigurationError(message, field="middleware", value=changed, allowed=allowed)
    return changed


def _wrong(field: str, value: object, allowed: str) -> ConfigurationError:
    return ConfigurationError(
        f"{field} is {value!r}; allowed: {allowed}", field=field, value=value, allowed=allowed
    )
