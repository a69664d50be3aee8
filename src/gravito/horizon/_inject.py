"""The mark of a parameter that the worker fills in."""

from __future__ import annotations

from typing import Any

__all__ = ["Injected", "inject"]


class Injected:
    """The default of a parameter that is not part of a job's payload."""

    def __repr__(self) -> str:
        return "inject()"


_MARK = Injected()


def inject() -> Any:
    """Mark a parameter as filled in by the worker, according to its annotation.

    Example::

        @job
        async def greet(to: str, mailer: Mailer = inject()) -> None: ...

    `mailer` is then what `horizon.provide` was given for `Mailer`; a parameter annotated `JobContext` gets the
    run's own. Whoever calls the function directly passes a value.
    """
    return _MARK
