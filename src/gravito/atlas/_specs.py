"""What a client knows of each command name: made once, then a dictionary look-up."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from redis._parsers.helpers import parse_set_result
from redis._parsers.response_callbacks import get_response_callbacks
from redis.client import CaseInsensitiveDict

from gravito import errors
from gravito.atlas.wire import commands
from gravito.atlas.wire.entry import Spec

_MOST = 4096  # names kept; a caller that makes names up must not fill the memory
_LEASED = commands.Route.BLOCKING | commands.Route.CONNECTION | commands.Route.APART


if TYPE_CHECKING:
    from gravito.atlas._prefix import KeyPrefix

    _Table = dict[Any, Any]  # redis-py's has no types
else:
    _Table = CaseInsensitiveDict

_parse_set_result: Callable[..., Any] = parse_set_result


class ResponseCallbacks(_Table):
    """redis-py's converters by command name; a change is noticed at the next command."""

    def __init__(self, protocol: int | None, changed: Callable[[], None]) -> None:
        self._changed: Callable[[], None] = lambda: None  # while the table is filled
        super().__init__(get_response_callbacks(user_protocol=protocol, legacy_responses=True))
        self["SET"] = _set_result
        self._changed = changed

    def __setitem__(self, name: Any, callback: Any) -> None:
        super().__setitem__(name, callback)
        self._changed()

    def __delitem__(self, name: Any) -> None:
        super().__delitem__(name)
        self._changed()

    def update(self, *args: Any, **named: Any) -> None:
        for name, callback in dict(*args, **named).items():
            self[name] = callback


def _set_result(reply: Any, **options: Any) -> Any:
    """redis-py's converter for SET with its plain case first."""
    if reply == "OK" and not options:
        return True
    if reply in ("OK", b"OK"):
        return reply if options.get("get") else True
    return _parse_set_result(reply, **options)


class Specs(dict[Any, Spec]):
    """Specs by the name a caller used; made when first asked for."""

    def __init__(self, protocol: int | None, key_prefix: str | None = None) -> None:
        super().__init__()
        self.prefix: KeyPrefix | None = None  # for whoever sends
        if key_prefix is not None:
            from gravito.atlas._prefix import KeyPrefix  # noqa: PLC0415  # few have one, and it brings the key table

            self.prefix = KeyPrefix(key_prefix)
        self.callbacks = ResponseCallbacks(protocol, self.clear)

    def __missing__(self, name: Any) -> Spec:
        text = name.decode("utf-8", "replace") if isinstance(name, bytes) else name
        if not isinstance(text, str) or not text.strip():
            raise errors.DataError(f"a command's name is a non-empty str or bytes, not {type(name).__name__}")
        flags = commands.route(text)
        convert = self.callbacks.get(name) if isinstance(name, str) else None
        spec = Spec.of(
            text,
            flags,
            convert=convert if self.prefix is None else self.prefix.converter(text, convert),
            leased=bool(flags & _LEASED) or text.upper() in commands.CONTAINERS,
        )
        if len(self) < _MOST:
            self[name] = spec
        return spec
