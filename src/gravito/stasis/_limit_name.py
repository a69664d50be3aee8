"""Names with fields, as `login:{ip}`."""

from __future__ import annotations

import string
from typing import Any

from gravito import errors

__all__ = ["Template"]


class Template:
    """A name with a `{field}` for each argument.

    Raises:
        InvalidKeyError: empty, or a field that is no plain name.
    """

    def __init__(self, text: str) -> None:
        if not isinstance(text, str) or not text:
            raise errors.InvalidKeyError(f"a template is text that is not empty, not {text!r}")
        try:
            parts = list(string.Formatter().parse(text))
        except ValueError as error:
            raise errors.InvalidKeyError(f"template {text!r}: {error}") from None
        self.text = text
        self.fields = tuple(dict.fromkeys(name for _, name, _, _ in parts if name is not None))
        for _, name, form, conversion in parts:
            if name is not None and (not name.isidentifier() or form or conversion):
                raise errors.InvalidKeyError(
                    f"template {text!r}: {{{name}}} is no plain name, as in 'login:{{ip}}'"
                )

    def render(self, **values: Any) -> str:
        """The name.

        Raises:
            InvalidKeyError: a field that is missing, unknown, or neither text nor a whole number.
        """
        if missing := [name for name in self.fields if name not in values]:
            raise errors.InvalidKeyError(f"template {self.text!r} needs {', '.join(missing)}")
        if unknown := [name for name in values if name not in self.fields]:
            raise errors.InvalidKeyError(f"template {self.text!r} has no field {', '.join(unknown)}")
        for name, value in values.items():
            if isinstance(value, bool) or not isinstance(value, str | int):
                raise errors.InvalidKeyError(
                    f"template {self.text!r}: {name} is {value!r}; give text or a whole number"
                )
        return self.text.format(**values)
