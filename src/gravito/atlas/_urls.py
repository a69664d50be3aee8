"""A connection's URL, taken apart into flat options. Pure; follows redis-py's `from_url` where that has an answer.

| URL | meaning |
| --- | --- |
| `redis://user:password@host:6379/0?option=value` | TCP |
| `rediss://...` | TCP with TLS |
| `unix://user:password@/path/to.sock?db=1` | unix socket |
| `redis+cluster://user:password@h1:6379,h2,h3` | a cluster, by some of its nodes; `rediss+cluster://` with TLS |
| `embedded://` | the private engine, gone at exit |
| `embedded:///some/dir` | the private engine, data kept in the folder |
| `embedded://./data` | the same, from the working directory on; likewise `../data`, and `~/data` from the home |
| `redis+sentinel://user:password@h1:26379,h2,h3/service/0` | a primary that sentinels name |
| `rediss+sentinel://...` | the same with TLS to the servers (`?sentinel_tls=true`: to the sentinels) |

User, password, host, path and options are percent-decoded. `db` in the query wins over the one in the path.
A part that did not parse is never shown: it may be half of a password with an unescaped `/`, `?`, `#` or `@`.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from gravito.atlas import _addresses
from gravito.atlas._rules import prefix, suggestion
from gravito.errors import ConfigurationError

SCHEMES = (
    "redis",
    "rediss",
    "unix",
    "embedded",
    "redis+sentinel",
    "rediss+sentinel",
    "redis+cluster",
    "rediss+cluster",
)
_STARTS = (".", "..", "~")  # of a folder that is not named from the root on
_ESCAPE = "write '/', '?', '#' and '@' in a user name or password as %2F, %3F, %23 and %40"


def parse_url(url: object, connection: str | None = None) -> dict[str, Any]:
    """Take a URL apart.

    Args:
        url: the URL; anything but text is refused.
        connection: the connection's name, for messages.

    Returns:
        Flat options: `driver` always, the others where the URL says something about them. Values from the query
        are still text.

    Raises:
        ConfigurationError: the URL is malformed; the message never shows the URL itself.
    """
    if not isinstance(url, str):
        raise _malformed(connection, f"it is of type {type(url).__name__}, not text")
    if url != url.strip() or any(letter < " " for letter in url):
        raise _malformed(connection, "it has spaces or control characters around or in it")
    try:
        parts = urlsplit(url)
    except ValueError:
        raise _malformed(connection, "the host is not a name or an address") from None
    if parts.scheme not in SCHEMES or "://" not in url:
        raise _wrong_scheme(connection, parts.scheme if "://" in url else "")
    _refuse_stray_marks(parts, connection)
    options = _SCHEME[parts.scheme](parts, connection)
    query = _query(parts, connection)
    if parts.scheme in ("unix", "embedded"):
        # these have no port and no numeric path, so nothing in the query can contradict the URL
        return query | options
    database = options.pop("db", None)
    if database is not None:
        query.setdefault("db", database)
    return query | options


def _malformed(connection: str | None, why: str) -> ConfigurationError:
    allowed = "redis://, rediss://, unix://, embedded://, redis+sentinel:// or redis+cluster://"
    return ConfigurationError(
        f"{prefix(connection)}malformed url: {why}; allowed: {allowed}", field="url", allowed=allowed
    )


def _wrong_scheme(connection: str | None, scheme: str) -> ConfigurationError:
    if not scheme:
        return _malformed(connection, "it does not begin with a scheme and ://")
    return ConfigurationError(
        f"{prefix(connection)}url has the scheme {scheme!r}; allowed: {', '.join(SCHEMES)}{suggestion(scheme, SCHEMES)}",
        field="url",
        value=scheme,
        allowed=SCHEMES,
    )


def _refuse_stray_marks(parts: SplitResult, connection: str | None) -> None:
    if parts.fragment:
        raise _malformed(connection, f"it has a '#'; {_ESCAPE}")
    stray_in_path = "@" in parts.path and parts.netloc != ""
    if stray_in_path or "@" in parts.query:
        raise _malformed(connection, f"it has an '@' behind the host; {_ESCAPE}")


def _query(parts: SplitResult, connection: str | None) -> dict[str, Any]:
    try:
        pairs = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
    except ValueError:
        raise _malformed(connection, "its query is not of the form option=value&option=value") from None
    options: dict[str, Any] = {}
    for key, value in pairs:
        if key == "url":
            raise _malformed(connection, "its query holds another url")
        options.setdefault(key, value)  # redis-py takes the first of several
    return options


def _credentials(parts: SplitResult) -> dict[str, Any]:
    options: dict[str, Any] = {}
    if parts.username:
        options["username"] = unquote(parts.username)
    if parts.password:
        options["password"] = unquote(parts.password)
    return options


def _tcp(parts: SplitResult, connection: str | None) -> dict[str, Any]:
    options = {"driver": "redis", "path": None, **_credentials(parts)}
    if parts.scheme == "rediss":
        options["tls"] = True
    if parts.hostname:
        options["host"] = unquote(parts.hostname)
    elif parts.netloc.rpartition("@")[2]:
        raise _malformed(connection, "it has a port but no host")
    port = _port(parts, connection)
    if port is not None:
        options["port"] = port
    database = unquote(parts.path).strip("/")
    if database:
        options["db"] = _database(database, connection)
    return options


def _database(text: str, connection: str | None) -> int:
    if not text.isascii() or not text.isdigit():
        raise ConfigurationError(
            f"{prefix(connection)}db in the url's path is {text!r}; allowed: a whole number of at least 0",
            field="db",
            value=text,
            allowed="a whole number of at least 0",
        )
    return int(text)


def _sentinel(parts: SplitResult, connection: str | None) -> dict[str, Any]:
    nodes = _nodes(parts, connection)
    service, _, database = parts.path.strip("/").partition("/")
    if not service:
        raise _malformed(connection, "the service is missing: write redis+sentinel://h1,h2,h3/mymaster")
    options = {"driver": "sentinel", "nodes": nodes, "service": unquote(service), **_credentials(parts)}
    if parts.scheme == "rediss+sentinel":
        options["tls"] = True
    if database:
        options["db"] = _database(database, connection)
    return options


def _nodes(parts: SplitResult, connection: str | None) -> tuple[str, ...]:
    """The hosts of a URL with several, which urllib's own properties know nothing of."""
    nodes = _addresses.parse(unquote(parts.netloc.rpartition("@")[2]))
    if not nodes or not _addresses.are_nodes(nodes):
        raise _malformed(connection, f"the hosts are not a list as h1:26379,h2 ({_ESCAPE})")
    return nodes


def _cluster(parts: SplitResult, connection: str | None) -> dict[str, Any]:
    if parts.path.strip("/") not in ("", "0"):
        raise _malformed(connection, "a cluster has database 0 alone, so nothing follows the hosts")
    options = {"driver": "cluster", "nodes": _nodes(parts, connection), **_credentials(parts)}
    return options | ({"tls": True} if parts.scheme == "rediss+cluster" else {})


def _port(parts: SplitResult, connection: str | None) -> int | None:
    try:
        return parts.port
    except ValueError:
        # urllib's own message quotes the text behind the colon, which may be a password's beginning
        pass
    text = parts.netloc.rpartition(":")[2]
    # a colon and text without a host may be a user and a password that lost the rest of the URL
    number = int(text) if parts.hostname and text.isascii() and text.isdigit() and len(text) <= 6 else None
    shown = f" is {number}, which" if number is not None else ""
    raise ConfigurationError(
        f"{prefix(connection)}the url's port{shown} is not a number in the range; allowed: a whole number"
        f" from 1 to 65535 ({_ESCAPE})",
        field="port",
        value=number,
        allowed="a whole number from 1 to 65535",
    )


def _unix(parts: SplitResult, connection: str | None) -> dict[str, Any]:
    if parts.netloc.rpartition("@")[2]:
        raise _malformed(
            connection, "a unix socket has no host: write unix:///path or unix://user:password@/path"
        )
    path = unquote(parts.path)
    if path in ("", "/"):
        raise _malformed(connection, "the socket's path is missing: write unix:///path")
    return {"driver": "redis", "path": path, **_credentials(parts)}


def _embedded(parts: SplitResult, connection: str | None) -> dict[str, Any]:
    start = parts.netloc
    if start not in ("", *_STARTS):  # a host, or a folder that reads like one
        raise _malformed(
            connection, "it has no host; a folder is embedded:///some/dir, or embedded://./dir from here on"
        )
    if parts.path == "/" or (start and not parts.path.strip("/")):
        raise _malformed(
            connection, "name a folder: embedded:///some/dir, or embedded:// for a private engine"
        )
    return {"driver": "embedded", "directory": start + unquote(parts.path) or None}


_SCHEME = {
    "redis": _tcp,
    "rediss": _tcp,
    "unix": _unix,
    "embedded": _embedded,
    "redis+sentinel": _sentinel,
    "rediss+sentinel": _sentinel,
    "redis+cluster": _cluster,
    "rediss+cluster": _cluster,
}
