"""`key_prefix`: put in front of every key that goes out, and taken off every key that comes back.

Which arguments are keys is `wire/keys.py`'s matter. Two tables here hold what it does not know: `_EDITS`,
arguments that name keys without being keys of the command (patterns, mostly), and `_STRIPS`, replies that
return keys. A command whose keys are not known is refused rather than sent with names of somebody else's.

What the server says about itself (MONITOR, SLOWLOG, keyspace events, the text of errors) shows whole names.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from gravito import errors
from gravito.atlas.wire import commands
from gravito.atlas.wire.keys import Rule, rule_of

__all__ = ["KeyPrefix"]

Args = tuple[Any, ...]
Plan = Callable[[Args], Args]  # arguments behind the command's words, in and out
Send = Callable[..., Any]

_MOST = 4096  # names kept; as for specs

# Subcommands of DEBUG that take a key, or keys; the others have none.
_DEBUG_KEYS: Final = frozenset({"DIGEST-VALUE", "HTSTATS-KEY", "LISTPACK", "OBJECT", "QUICKLIST", "SDSLEN"})

# They name keys by definitions, filters or indexes that span the whole database.
_REFUSED: Final = frozenset({"TS.MGET", "TS.MRANGE", "TS.MREVRANGE", "TS.QUERYINDEX"})


class KeyPrefix:
    """One prefix, as text and as bytes, and what it does to commands and replies.

    Args:
        text: the prefix. It has no characters that mean something in a pattern, so it matches itself in one.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.data = text.encode()
        self._plans: dict[str, Plan] = {}  # by a command's name as the caller wrote it

    def __repr__(self) -> str:
        return f"<KeyPrefix {self.text!r}>"

    # -- going out -------------------------------------------------------------------------------------------

    def over(self, send: Send) -> Send:
        """`send`, with prefixed keys: for the `_send` of a client, a pipeline or a session."""

        def prefixed(spec: Any, args: Args, options: dict[str, Any] | None, text: bool) -> Any:
            return send(spec, (*spec.words, *self.rest(spec.name, args[len(spec.words) :])), options, text)

        return prefixed

    def rest(self, name: str, args: Args) -> Args:
        """The arguments of a command with its keys prefixed.

        Raises:
            DataError: the command is not known here; nothing is sent then.
        """
        plan = self._plans.get(name)
        if plan is None:
            plan = self._plan(" ".join(name.upper().split()))
            if len(self._plans) < _MOST:
                self._plans[name] = plan
        return plan(args)

    def key(self, key: Any) -> Any:
        """One key with the prefix. What is no key (None, a bool, an object) stays, for the encoder to refuse."""
        if isinstance(key, str):
            return self.text + key
        if isinstance(key, (bytes, bytearray, memoryview)):
            return self.data + bytes(key)
        if isinstance(key, float):
            return self.text + repr(float(key))
        if isinstance(key, int) and not isinstance(key, bool):
            return self.text + str(int(key))
        return key

    def keys(self, args: Sequence[Any]) -> list[Any]:
        """Keys with the prefix."""
        return [self.key(key) for key in args]

    def _plan(self, name: str) -> Plan:
        words = name.split()
        if len(words) == 1 and name in (*commands.CONTAINERS, "DEBUG"):
            return self._container(name)
        places = _debug_rule(words[-1]) if words[0] == "DEBUG" else rule_of(name)
        if places is None or name in _REFUSED or (name.startswith("FT.") and not name.startswith("FT.SUG")):
            raise errors.DataError(
                f"{name}: which of its arguments are keys is not known, so key_prefix {self.text!r} cannot be applied; "
                "send it with a client that has no key_prefix"
            )
        edit = _EDITS.get(name)
        return self._at(places) if edit is None else lambda args: edit(self, args)

    def _at(self, places: Rule) -> Plan:
        def plan(args: Args) -> Args:
            found = places(args)
            if not found:
                return args
            changed = list(args)
            for place in found:
                changed[place] = self.key(args[place])
            return tuple(changed)

        return plan

    def _container(self, name: str) -> Plan:
        """For a command that came in pieces, as ("MEMORY", "USAGE", key): the subcommand decides."""

        def plan(args: Args) -> Args:
            if not args:
                return args
            word = args[0].decode("utf-8", "replace") if isinstance(args[0], bytes) else str(args[0])
            return (args[0], *self.rest(f"{name} {word}", args[1:]))

        return plan

    # -- coming back -----------------------------------------------------------------------------------------

    def converter(self, name: str, convert: Callable[..., Any] | None) -> Callable[..., Any] | None:
        """A reply's converter that takes the prefix off first, where the reply holds keys."""
        strip = _STRIPS.get(" ".join(name.upper().split()))
        if strip is None:
            return convert

        def stripping(reply: Any, **options: Any) -> Any:
            own = strip(self, reply)
            return own if convert is None else convert(own, **options)

        return stripping

    def strip(self, key: Any) -> Any:
        """A key without the prefix; anything else as it is."""
        if isinstance(key, str):
            return key.removeprefix(self.text)
        return key.removeprefix(self.data) if isinstance(key, bytes) else key

    def owns(self, key: Any) -> bool:
        """Whether a key begins with the prefix."""
        return bool(key.startswith(self.text if isinstance(key, str) else self.data))


def _debug_rule(subcommand: str) -> Rule | None:
    """The server has no specifications for DEBUG."""
    like = "GET" if subcommand in _DEBUG_KEYS else "PING"
    return rule_of("DEL" if subcommand == "DIGEST-VALUE" else like)


# -- arguments that name keys without being keys of the command ----------------------------------------------


def _pattern(prefix: KeyPrefix, args: Args) -> Args:
    """KEYS: the pattern."""
    return (prefix.key(args[0]), *args[1:]) if args else args


def _match(prefix: KeyPrefix, args: Args) -> Args:
    """SCAN: the pattern of MATCH; without one everything with the prefix. The cursor is no key."""
    changed, found = list(args), False
    at = 1
    while at < len(args):
        option = _word(args[at])
        if option == "MATCH" and at + 1 < len(args):
            changed[at + 1], found = prefix.key(args[at + 1]), True
        at += 2  # every option has one value
    return tuple(changed) if found or not args else (*args, "MATCH", prefix.text + "*")


def _sort(prefix: KeyPrefix, args: Args) -> Args:
    """SORT, SORT_RO: the key, STORE's, and patterns. One without `*` (`BY nosort`, `GET #`) names no key."""
    changed = prefix.keys(args[:1]) + list(args[1:])
    values = {"LIMIT": 2, "GET": 1, "BY": 1, "STORE": 1}
    at = 1
    while at < len(args):
        option = _word(args[at])
        if at + 1 < len(args) and (
            option == "STORE" or (option in ("BY", "GET") and _has_star(args[at + 1]))
        ):
            changed[at + 1] = prefix.key(args[at + 1])
        at += 1 + values.get(option, 0)
    return tuple(changed)


def _word(value: Any) -> str:
    return (value.decode("ascii", "replace") if isinstance(value, bytes) else str(value)).upper()


def _has_star(pattern: Any) -> bool:
    return (
        b"*" in bytes(pattern) if isinstance(pattern, (bytes, bytearray, memoryview)) else "*" in str(pattern)
    )


_EDITS: Final[dict[str, Callable[[KeyPrefix, Args], Args]]] = {
    "CLUSTER KEYSLOT": _pattern,  # the slot of the key as the server has it
    "CLUSTERSCAN": _match,
    "KEYS": _pattern,
    "SCAN": _match,
    "SORT": _sort,
    "SORT_RO": _sort,
}


# -- replies that return keys --------------------------------------------------------------------------------


def _all(prefix: KeyPrefix, reply: Any) -> Any:
    """A list of keys."""
    return [prefix.strip(key) for key in reply] if isinstance(reply, list) else reply


def _own(prefix: KeyPrefix, reply: Any) -> Any:
    """A list of keys of the whole database: those with the prefix."""
    return [prefix.strip(key) for key in reply if prefix.owns(key)] if isinstance(reply, list) else reply


def _scanned(prefix: KeyPrefix, reply: Any) -> Any:
    """[cursor, keys]"""
    if isinstance(reply, list) and len(reply) == 2:
        return [reply[0], _all(prefix, reply[1])]
    return reply


def _first(prefix: KeyPrefix, reply: Any) -> Any:
    """[key, what was taken from it, ...], or None."""
    return [prefix.strip(reply[0]), *reply[1:]] if isinstance(reply, list) and reply else reply


def _each(prefix: KeyPrefix, reply: Any) -> Any:
    """{key: entries} in RESP3, [[key, entries], ...] in RESP2."""
    if isinstance(reply, dict):
        return {prefix.strip(key): entries for key, entries in reply.items()}
    return [_first(prefix, part) for part in reply] if isinstance(reply, list) else reply


def _one(prefix: KeyPrefix, reply: Any) -> Any:
    """A key of the whole database: None if it is not one of ours."""
    if not isinstance(reply, (str, bytes)) or reply in ("QUEUED", b"QUEUED"):  # MULTI by hand
        return reply
    return prefix.strip(reply) if prefix.owns(reply) else None


_STRIPS: Final[dict[str, Callable[[KeyPrefix, Any], Any]]] = {
    "BLMPOP": _first,
    "BLPOP": _first,
    "BRPOP": _first,
    "BZMPOP": _first,
    "BZPOPMAX": _first,
    "BZPOPMIN": _first,
    "CLUSTER GETKEYSINSLOT": _own,
    "CLUSTERSCAN": _scanned,
    "KEYS": _all,
    "LMPOP": _first,
    "RANDOMKEY": _one,
    "SCAN": _scanned,
    "XREAD": _each,
    "XREADGROUP": _each,
    "ZMPOP": _first,
}
