"""What goes with a job besides its arguments: chosen context variables, and the trace it belongs to."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextvars import ContextVar
from typing import Any

import msgspec

from gravito.errors import ConfigurationError, PayloadError
from gravito.horizon import _arguments
from gravito.horizon._payload import Extra

__all__ = ["Carry"]

_ALLOWED = "a list of contextvars.ContextVar objects, as carry=[request_id]"


class Carry:
    """Takes them along at a push, and puts them back where the job runs.

    The trace context is carried whenever the program has imported OpenTelemetry, as its propagators say
    (https://www.w3.org/TR/trace-context/).

    Args:
        variables: context variables with different names, whose values msgspec can encode.

    Raises:
        ConfigurationError: what was given is no context variable, or two have one name.
    """

    def __init__(self, variables: Sequence[ContextVar[Any]]) -> None:
        many = isinstance(variables, Sequence)
        wrong = [one for one in variables if not isinstance(one, ContextVar)] if many else [variables]
        if wrong:
            message = f"carry: {wrong[0]!r} is not allowed; allowed: {_ALLOWED}"
            raise ConfigurationError(message, field="carry", value=wrong[0], allowed=_ALLOWED)
        self._variables = {variable.name: variable for variable in variables}
        if len(self._variables) != len(variables):
            raise ConfigurationError("carry: two context variables have the same name", field="carry")

    def __repr__(self) -> str:
        return f"<Carry {', '.join(self._variables) or 'nothing'}>"

    def context(self) -> dict[str, msgspec.Raw] | None:
        """Values of the variables that are set here.

        Raises:
            PayloadError: a value that cannot be encoded.
        """
        found: dict[str, msgspec.Raw] | None = None
        for name, variable in self._variables.items():
            value = variable.get(_UNSET)
            if value is _UNSET:
                continue
            try:
                data = _arguments.encode(value)
            except Exception as error:  # msgspec, or the user's own type
                raise PayloadError(
                    f"context variable {name!r}: its value cannot be encoded ({error})"
                ) from error
            found = found or {}
            found[name] = msgspec.Raw(data)
        return found

    def trace(self) -> dict[str, str] | None:
        """The trace context, if there is one."""
        module = sys.modules.get("opentelemetry.context")  # optional; imported by whoever traces
        if module is None or not module.get_current():
            return None
        from opentelemetry import propagate  # noqa: PLC0415  # see above

        carrier: dict[str, str] = {}
        propagate.inject(carrier)
        return carrier or None

    def restore(self, extra: Extra) -> None:
        """Set all that in the current context, which is the job's own."""
        if extra.context:
            for name, value in extra.context.items():
                variable = self._variables.get(name)
                if variable is not None:  # else this worker's code no longer carries it
                    variable.set(msgspec.msgpack.decode(value))
        if extra.trace:
            try:
                from opentelemetry import context, propagate  # noqa: PLC0415  # optional
            except ImportError:
                return
            context.attach(propagate.extract(extra.trace))


_UNSET: Any = object()
