"""What each setting may be: one table per settings object, used to cast, to check and to explain. Pure."""

from __future__ import annotations

import difflib
import math
import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from gravito.atlas import _addresses
from gravito.errors import ConfigurationError

TRUE = frozenset({"1", "true", "t", "yes", "y", "on"})
FALSE = frozenset({"0", "false", "f", "no", "n", "off"})
DRIVERS = ("redis", "embedded", "sentinel", "cluster")
MASK = "***"


class Rule(NamedTuple):
    """What one setting accepts, and how text (a URL's query, an environment variable) becomes it."""

    allowed: str  # ends the sentence "allowed: ..."
    accepts: Callable[[Any], bool]
    parse: Callable[[str], Any]  # may raise ValueError
    optional: bool = False  # None is a value of its own
    secret: bool = False  # never shown, in an error or in a repr
    choices: tuple[str, ...] = ()  # for "did you mean"


def _flag(text: str) -> bool:
    word = text.strip().lower()
    if word in TRUE:
        return True
    if word in FALSE:
        return False
    raise ValueError


def _no_text(text: str) -> Any:
    raise ValueError


def whole(low: int, high: int | None = None) -> Rule:
    """A whole number of at least `low`, and at most `high` if there is one."""
    allowed = (
        f"a whole number from {low} to {high}" if high is not None else f"a whole number of at least {low}"
    )

    def accepts(value: Any) -> bool:
        # bool is an int, but nobody who writes port=True means 1
        return type(value) is int and value >= low and (high is None or value <= high)

    return Rule(allowed, accepts, int)


def seconds(*, zero: str = "", optional: bool = False) -> Rule:
    """A duration. `zero` says what 0 means where it is allowed."""
    allowed = "a positive number of seconds"
    if zero:
        allowed += f", or 0 ({zero})"
    if optional:
        allowed += ", or None (no limit)"

    def accepts(value: Any) -> bool:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            return False
        return value > 0 or (bool(zero) and value == 0)

    return Rule(allowed, accepts, float, optional=optional)


def text(allowed: str = "text", *, optional: bool = False, secret: bool = False) -> Rule:
    """Text that is not empty; None where `optional`."""
    if optional:
        allowed += ", or None"
    return Rule(allowed, lambda value: isinstance(value, str) and value != "", str, optional, secret)


def choice(*values: str) -> Rule:
    """One of some words."""
    return Rule(", ".join(values), lambda value: value in values, str, choices=values)


def _is_client_name(value: Any) -> bool:
    # CLIENT SETNAME takes no spaces, newlines or other special characters
    return isinstance(value, str) and value != "" and all("!" <= letter <= "~" for letter in value)


FLAG = Rule("True or False", lambda value: isinstance(value, bool), _flag)
PROTOCOL = Rule("2, 3, or None", lambda value: type(value) is int and value in (2, 3), int, optional=True)
KEY_PREFIX = Rule(
    "text without the characters *?[]^\\, which mean something in patterns, or None",
    lambda value: isinstance(value, str) and value != "" and not set(value) & set("*?[]^\\"),
    str,
    optional=True,
)
CLIENT_NAME = Rule("text without spaces or control characters, or None", _is_client_name, str, optional=True)

TIMEOUTS = {
    "connect": seconds(),
    "command": seconds(optional=True),
    "lease": seconds(optional=True),
    "drain": seconds(zero="do not wait"),
}
LIMITS = dict.fromkeys(
    ("in_flight", "in_flight_bytes", "leased_wires", "lease_over", "push_buffer", "reply_bytes"), whole(1)
)
RETRY = {
    "attempts": whole(0),
    "base": seconds(zero="at once"),
    "cap": seconds(zero="at once"),
    "writes": FLAG,
}
BREAKER = {"failures": whole(1), "reset": seconds()}
TLS = {
    "ca_file": text("the path of a file", optional=True),
    "cert_file": text("the path of a file", optional=True),
    "key_file": text("the path of a file", optional=True),
    "key_password": text(optional=True, secret=True),
    "check_hostname": FLAG,
    "verify": FLAG,
}
SETTINGS = {
    "name": text("a name that is not empty"),
    "driver": choice(*DRIVERS),
    "host": text("a host name or an address"),
    "port": whole(1, 65535),
    "path": text("the path of a unix socket", optional=True),
    "directory": text("the path of a folder", optional=True),
    "username": text(optional=True),
    "password": text(optional=True, secret=True),
    "db": whole(0),
    "protocol": PROTOCOL,
    "decode_responses": FLAG,
    "client_name": CLIENT_NAME,
    "health_check": seconds(zero="off"),
    "credential_provider": Rule(
        "a function (plain or async) that returns a password or (username, password), "
        "an object with get_credentials, or None",
        lambda value: callable(value) or hasattr(value, "get_credentials"),
        _no_text,
        optional=True,
        secret=True,
    ),
    "measure_latency": FLAG,
    "key_prefix": KEY_PREFIX,
    "nodes": Rule("a list of addresses, as host:port", _addresses.are_nodes, _addresses.parse),
    "address_map": Rule(
        "a mapping from host:port to host:port, a function from (host, port) to (host, port), or None",
        _addresses.is_map,
        _addresses.parse_map,
        optional=True,
    ),
    "service": text("the name of a service", optional=True),
    "sentinel_username": text(optional=True),
    "sentinel_password": text(optional=True, secret=True),
    "read_from": choice("primary", "replica", "nearest"),
}
GROUPS: Mapping[str, Mapping[str, Rule]] = {
    "timeouts": TIMEOUTS,
    "limits": LIMITS,
    "retry": RETRY,
    "breaker": BREAKER,
    "tls": TLS,
    "sentinel_tls": TLS,
}


def suggestion(word: str, known: Iterable[str]) -> str:
    """`", did you mean 'port'?"` or nothing."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def prefix(connection: str | None) -> str:
    """The start of a message about one connection."""
    return f"connection {connection!r}: " if connection else ""


def refuse(connection: str | None, field: str, value: Any, rule: Rule) -> ConfigurationError:
    """The error for a value that `rule` does not take. A secret is described by its type alone."""
    shown = f"is {value!r}" if not rule.secret else f"is of type {type(value).__name__} or empty"
    hint = suggestion(value, rule.choices) if isinstance(value, str) else ""
    return ConfigurationError(
        f"{prefix(connection)}{field} {shown}; allowed: {rule.allowed}{hint}",
        field=field,
        value=None if rule.secret else value,
        allowed=rule.choices or rule.allowed,
    )


def unknown(connection: str | None, field: str, known: Iterable[str]) -> ConfigurationError:
    """The error for an option that does not exist. Its value is not shown: it may be a misspelt password."""
    names = sorted(known)
    return ConfigurationError(
        f"{prefix(connection)}unknown option {field!r}{suggestion(field, names)}; allowed: {', '.join(names)}",
        field=field,
        allowed=names,
    )


def check(connection: str | None, field: str, value: Any, rule: Rule) -> None:
    """Raise ConfigurationError unless `rule` takes the value."""
    if value is None and rule.optional:
        return
    if not rule.accepts(value):
        raise refuse(connection, field, value, rule)


def cast(connection: str | None, field: str, value: Any, rule: Rule) -> Any:
    """Make text (and paths) into what the setting wants; `check` comes later, when the object is built."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if not isinstance(value, str):
        return value
    if rule.optional and (
        value == "" or (rule.parse is not str and value.strip().lower() in ("none", "null"))
    ):
        return None
    try:
        return rule.parse(value)
    except ValueError:
        raise refuse(connection, field, value, rule) from None
