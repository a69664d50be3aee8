"""Flat or nested options, with redis-py's names, made into one flat mapping of our own names. Pure.

`{"socket_timeout": 2}`, `{"timeouts.command": 2}` and `{"timeouts": {"command": 2}}` all become
`{"timeouts.command": 2}`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gravito.atlas import _rules
from gravito.atlas._urls import parse_url
from gravito.errors import ConfigurationError

ALIASES = {
    "unix_socket_path": "path",
    "address_remap": "address_map",
    "health_check_interval": "health_check",
    "socket_timeout": "timeouts.command",
    "socket_connect_timeout": "timeouts.connect",
    "max_connections": "limits.leased_wires",
    "ssl": "tls",
    "ssl_ca_certs": "tls.ca_file",
    "ssl_certfile": "tls.cert_file",
    "ssl_keyfile": "tls.key_file",
    "ssl_password": "tls.key_password",
    "ssl_check_hostname": "tls.check_hostname",
    "ssl_cert_reqs": "tls.verify",
}
# the connection's name is the mapping's key, not an option in it
RULES: dict[str, _rules.Rule] = {key: rule for key, rule in _rules.SETTINGS.items() if key != "name"} | {
    f"{group}.{field}": rule for group, rules in _rules.GROUPS.items() for field, rule in rules.items()
}
KNOWN = sorted({key for key in RULES if "." not in key} | set(_rules.GROUPS) | set(ALIASES) | {"url"})
SECURED = ("tls", "sentinel_tls")  # groups that are switched on by True, or by an empty mapping
_VERIFY = {"none": False, "0": False, "optional": True, "1": True, "required": True, "2": True}


def read_options(connection: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Resolve names, cast text, and lay the `url` (which wins, as in redis-py) over the rest.

    Returns:
        Our own names, dotted for groups (`timeouts.command`). A group that was given as an object, and `tls` as
        True, False or None, stands under its own name.

    Raises:
        ConfigurationError: an unknown option, one that is given twice, or text that cannot be cast.
    """
    if not isinstance(options, Mapping):
        raise ConfigurationError(
            f"{_rules.prefix(connection)}is of type {type(options).__name__}; allowed: a mapping of options, or a url",
            field=connection,
            allowed="a mapping of options, or a url",
        )
    plain = _flatten(connection, {key: value for key, value in options.items() if key != "url"})
    url = options.get("url")
    if url is None or url == "":  # an unset variable in a configuration file
        return plain
    over = _flatten(connection, parse_url(url, connection))
    if over.get("tls") is True and plain.get("tls"):
        del over["tls"]  # rediss:// says that there is TLS, and a TLS object beside it says which
    return plain | over


def _flatten(connection: str, options: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in options.items():
        for name, part in _expand(connection, key, value).items():
            if name in flat:
                raise ConfigurationError(
                    f"{_rules.prefix(connection)}{name} is given twice (once as {key!r})", field=name
                )
            flat[name] = part
    return flat


def _expand(connection: str, key: Any, value: Any) -> dict[str, Any]:
    if not isinstance(key, str):
        raise _rules.unknown(connection, repr(key), KNOWN)
    name = ALIASES.get(key, key)
    if key == "ssl_cert_reqs":
        return {name: _verify(connection, value)}
    if name in RULES:
        return {name: _rules.cast(connection, name, value, RULES[name])}
    if name not in _rules.GROUPS:
        raise _rules.unknown(connection, key, KNOWN)
    if isinstance(value, Mapping):
        return _group(connection, name, value)
    if name in SECURED:
        return {name: _rules.cast(connection, name, value, _rules.FLAG)}
    return {name: value}


def _group(connection: str, name: str, values: Mapping[Any, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {name: True} if name in SECURED else {}  # an empty mapping still asks for TLS
    for field, value in values.items():
        dotted = f"{name}.{field}"
        if dotted not in RULES:
            raise _rules.unknown(connection, dotted, [f"{name}.{known}" for known in _rules.GROUPS[name]])
        flat[dotted] = _rules.cast(connection, dotted, value, RULES[dotted])
    return flat


def _verify(connection: str, value: Any) -> bool:
    """redis-py's ssl_cert_reqs: a word, or a member of ssl.VerifyMode."""
    word = str(int(value)) if isinstance(value, int) else str(value).lower()
    if word not in _VERIFY:
        rule = _rules.choice("none", "optional", "required")
        raise _rules.refuse(connection, "ssl_cert_reqs", value, rule)
    return _VERIFY[word]
