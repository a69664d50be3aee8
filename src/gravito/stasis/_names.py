"""Keys, tags, namespaces, and templates of keys.

Text that a field of a template puts into a key is escaped like in a URL: `%`, `:`, braces, control characters,
and whatever character ends the field in the template become `%3A` and the like. So each field can be told from
the next, and a value chosen by a user neither reaches into another part of the key nor chooses its slot in a cluster.
What has no text of its own begins with `%` and something that no escaped character is: `%none`, `%x` for bytes, `%set`.
What a person writes in `cache.forget("user:1")` is not escaped; for ordinary ids it is the same.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from operator import attrgetter
from string import Formatter
from typing import Any, Final, NamedTuple
from uuid import UUID

from gravito import errors

__all__ = ["MAX_BYTES", "Template", "check_key", "check_namespace", "check_tag"]

MAX_BYTES: Final = 1024  # of a key or a tag, in UTF-8
_SURELY: Final = MAX_BYTES // 4  # characters that surely fit
_NAMESPACE: Final = re.compile(r"[A-Za-z0-9_.-]{1,128}\Z")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def check_key(key: str) -> str:
    """`key` itself, if it can name an entry: text of 1 to 1024 bytes in UTF-8, without control characters.

    Raises:
        InvalidKeyError: it cannot.
    """
    if type(key) is str and 0 < len(key) <= _SURELY and key.isprintable():
        return key
    return _checked("key", key)


def check_tag(tag: str) -> str:
    """`tag` itself, if it can name a tag: the same rules as for keys.

    Raises:
        InvalidKeyError: it cannot.
    """
    if type(tag) is str and 0 < len(tag) <= _SURELY and tag.isprintable():
        return tag
    return _checked("tag", tag)


def check_namespace(name: str) -> str:
    """`name` itself, if it can name a namespace: 1 to 128 letters of ASCII, digits, `_`, `.` and `-`.

    Raises:
        InvalidKeyError: it cannot.
    """
    if isinstance(name, str) and _NAMESPACE.match(name):
        return name
    raise errors.InvalidKeyError(
        f"namespace {_shown(name)}: use 1 to 128 of the characters A-Z, a-z, 0-9, '_', '.' and '-'"
    )


def _checked(what: str, name: Any) -> str:
    """The rules one by one, each with its message."""
    if not isinstance(name, str):
        raise errors.InvalidKeyError(f"{what} {_shown(name)} is a {type(name).__name__}: give a str")
    if not name:
        raise errors.InvalidKeyError(f"the {what} is empty: give 1 to {MAX_BYTES} bytes of text")
    try:
        size = len(name.encode())
    except UnicodeEncodeError as error:
        raise errors.InvalidKeyError(f"{what} {_shown(name)} has no UTF-8: {error.reason}") from None
    if size > MAX_BYTES:
        raise errors.InvalidKeyError(
            f"{what} {_shown(name)} has {size} bytes, more than {MAX_BYTES}: use a digest of its long part"
        )
    if _CONTROL.search(name):
        raise errors.InvalidKeyError(f"{what} {_shown(name)} has control characters: leave them out")
    return name


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:97]}..."


# -- templates -----------------------------------------------------------------------------------------------


class _Field(NamedTuple):
    path: str  # "user.id"
    name: str  # "user": the argument
    get: Callable[[Any], Any] | None  # from the argument to the value, if there are attributes in the path


class Template:
    """A key, tag or name with fields: `user:{user_id}` or `team:{user.team_id}`.

    A field is an argument's name, with attributes behind it if need be. Values are text, numbers, bool, None,
    bytes (`%x` and hex), UUID, Decimal, dates and times, Enum members (by name, or by value where they are text or
    numbers), and lists, tuples (as lists) and sets of these. 1 and "1" make the same key, as they do in a URL, and so
    does whatever else is written alike, a UUID and its text for instance; None, True and False are `%none`, `%true` and
    `%false`, which no text makes. Double braces are plain braces.

    Args:
        text: the template.
        typed: values of different types make different keys: text stands in quotes, and what is neither text nor a
            plain number has its class in front (`%UUID.`). Only a tuple is still as a list.

    Raises:
        InvalidKeyError: a template that cannot be used: fields without a name, with an index, conversion or
            format, or two with nothing between them.
    """

    def __init__(self, text: str, *, typed: bool = False) -> None:
        check_key(text)
        self.text = text
        self._typed = typed
        self._literals, self._fields = _parsed(text)
        self.names = frozenset(
            field.name for field in self._fields
        )  # the arguments that are needed: {"user"}
        self._escaped = _escapes(self._literals)
        # Ints are the usual values, and cannot hold what is escaped unless a separator says so.
        self._ints_are_safe = not self._escaped.search("0123456789-")

    def __repr__(self) -> str:
        return f"<Template {self.text!r}>"

    @property
    def fields(self) -> tuple[str, ...]:
        """What is filled in, in order: `("user.id",)`."""
        return tuple(field.path for field in self._fields)

    def render(self, values: Mapping[str, Any]) -> str:
        """The name, with `values` by argument. What the template does not use is not looked at.

        Raises:
            InvalidKeyError: a value is missing, or has no text that tells it from others, or the result is too
                long for a key.
        """
        for name in self.names:
            if name not in values:
                given = ", ".join(values) or "nothing"
                raise errors.InvalidKeyError(f"template {self.text!r} needs {name!r}, and got {given}")
        return self._filled([values[field.name] for field in self._fields])

    def unused(self, function: Callable[..., Any]) -> tuple[str, ...]:
        """The parameters of `function` that do not tell its entries apart, in order: not in the template.

        Raises:
            InvalidKeyError: the template has a field that is no parameter; names those that there are.
        """
        parameters = inspect.signature(function).parameters
        for field in self._fields:
            if field.name not in parameters or parameters[field.name].kind in _VARIADIC:
                named = [name for name, each in parameters.items() if each.kind not in _VARIADIC]
                raise errors.InvalidKeyError(
                    f"template {self.text!r}: {_called(function)} has no parameter {field.name!r}; "
                    f"it has {', '.join(named) or 'none'}"
                )
        return tuple(name for name in parameters if name not in self.names)

    def binder(self, function: Callable[..., Any]) -> Callable[[tuple[Any, ...], Mapping[str, Any]], str]:
        """A function that makes the name from the arguments of one call, `(args, kwargs)`.

        It raises TypeError where the call itself would, and what `render` raises.

        Raises:
            InvalidKeyError: as `unused` does.
        """
        self.unused(function)
        signature = inspect.signature(function)
        order = _order(signature)
        needed = [order.index(field.name) for field in self._fields] if order is not None else []
        count = -1 if order is None else len(order)
        filled = self._filled

        def bound(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:
            # all given by position, as most calls are: nothing to bind
            if len(args) == count and not kwargs:
                return filled([args[place] for place in needed])
            call = signature.bind(*args, **kwargs)
            call.apply_defaults()
            return filled([call.arguments[field.name] for field in self._fields])

        return bound

    def _filled(self, arguments: Sequence[Any]) -> str:
        """The name, with one argument for each field."""
        parts = [self._literals[0]]
        for field, argument, literal in zip(self._fields, arguments, self._literals[1:], strict=True):
            value = argument if field.get is None else self._got(field, argument)
            if type(value) is int and self._ints_are_safe:
                parts.append(str(value))
            else:
                parts.append(self._text(field, value))
            parts.append(literal)
        return check_key("".join(parts))

    def _got(self, field: _Field, argument: Any) -> Any:
        assert field.get is not None
        try:
            return field.get(argument)
        except AttributeError as error:
            raise errors.InvalidKeyError(f"template {self.text!r}: {{{field.path}}}: {error}") from error

    def _text(self, field: _Field, value: Any) -> str:
        """The text of one value, escaped."""
        constant = _CONSTANTS.get(value) if value is None or isinstance(value, bool) else None
        if constant is not None:
            return constant
        if isinstance(value, list | tuple | set | frozenset):
            items = [self._text(field, item) for item in value]
            if isinstance(value, set | frozenset):
                items.sort()
            # a comma behind each, so that no item and an empty one differ
            mark = "%set" if isinstance(value, set | frozenset) else ""
            return f"{mark}[{''.join(f'{item},' for item in items)}]"
        if isinstance(value, bytes):
            return f"%x{value.hex()}"
        text = _plain_text(value)
        if text is None:
            raise errors.InvalidKeyError(
                f"template {self.text!r}: {{{field.path}}} is a {type(value).__name__}, "
                f"which has no text of its own: use an attribute, like {{{field.path}.id}}"
            )
        text = self._escaped.sub(_percent, text)
        return _with_type(value, text) if self._typed else text


_VARIADIC: Final = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
_CONSTANTS: Final = {None: "%none", True: "%true", False: "%false"}


def _plain_text(value: Any) -> str | None:
    """Text that tells a value from others of its kind; None where there is none."""
    if isinstance(value, Enum) and not isinstance(value, str | int):
        return value.name or str(value.value)
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int.__repr__(value)
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    return str(value) if isinstance(value, float | Decimal | UUID | timedelta) else None


def _with_type(value: Any, text: str) -> str:
    """Text that tells a value from those of other types, too."""
    kind = type(value)
    if kind is int or kind is float:
        return text
    return f"'{text}'" if kind is str else f"%{kind.__name__}.{text}"


def _percent(match: re.Match[str]) -> str:
    return "".join(f"%{byte:02X}" for byte in match.group().encode("utf-8", "surrogatepass"))


def _parsed(text: str) -> tuple[list[str], list[_Field]]:
    """Literals and fields in turn: one literal before, between and after the fields."""
    literals = [""]
    fields: list[_Field] = []
    try:
        parts = list(Formatter().parse(text))
    except ValueError as error:
        raise errors.InvalidKeyError(f"template {text!r}: {error}; write {{{{ or }}}} for a brace") from None
    for literal, path, spec, conversion in parts:
        literals[-1] += literal
        if path is None:
            continue
        if spec or conversion or not all(map(str.isidentifier, path.split("."))):
            raise errors.InvalidKeyError(
                f"template {text!r}: {{{path}}} is not the name of an argument, or of an attribute like "
                "{user.id}; indexes, conversions and formats are not taken"
            )
        if fields and not _separates(literals[-1]):
            raise errors.InvalidKeyError(
                f"template {text!r}: nothing tells where {{{fields[-1].path}}} ends and {{{path}}} begins: "
                "put ':' behind the first"
            )
        name, _, attributes = path.partition(".")
        fields.append(_Field(path, name, attrgetter(attributes) if attributes else None))
        literals.append("")
    return literals, fields


def _separates(literal: str) -> bool:
    """Whether a literal can end a field: with a character that escaped text can do without."""
    return bool(literal) and not literal[0].isalnum() and literal[0] not in "%[]"


def _escapes(literals: list[str]) -> re.Pattern[str]:
    """What must not stand in a value: it ends where the literal behind it begins."""
    ends = "".join(literal[0] for literal in literals[1:-1])
    return re.compile(rf"[%:{{}}\[\],\x00-\x1f\x7f-\x9f\ud800-\udfff{re.escape(ends)}]")


def _order(signature: inspect.Signature) -> list[str] | None:
    """The parameters, if a call can give each by position; else None."""
    parameters = signature.parameters.values()
    if any(each.kind in _VARIADIC or each.kind is inspect.Parameter.KEYWORD_ONLY for each in parameters):
        return None
    return [each.name for each in parameters]


def _called(function: Callable[..., Any]) -> str:
    return getattr(function, "__qualname__", None) or repr(function)
