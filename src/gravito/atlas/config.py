"""Settings of a connection: small frozen objects, checked when they are built, secrets masked when shown.

Every setting can be given as a field (`Settings(port=6380)`), in a mapping (`{"port": 6380}`), in a URL's query
(`redis://host?client_name=web`) or as a keyword of `Client.from_url`. Groups are given as objects, as mappings or
dotted: `timeouts=Timeouts(command=2)`, `{"timeouts": {"command": 2}}`, `?timeouts.command=2`. Names that redis-py
users know are understood too: `socket_timeout`, `socket_connect_timeout`, `max_connections`,
`health_check_interval`, `unix_socket_path`, `ssl`, `ssl_ca_certs`, `ssl_certfile`, `ssl_keyfile`, `ssl_password`,
`ssl_check_hostname`, `ssl_cert_reqs`, `address_remap`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar
from urllib.parse import quote

import msgspec

from gravito.atlas import _addresses, _rules
from gravito.atlas._groups import TLS, Breaker, Checked, Limits, Retry, Timeouts
from gravito.atlas._options import SECURED, read_options
from gravito.atlas._urls import parse_url
from gravito.errors import ConfigurationError

__all__ = ["TLS", "Breaker", "Limits", "Retry", "Settings", "Timeouts"]

_Part = TypeVar("_Part", bound=Checked)


class Settings(Checked, frozen=True, kw_only=True):
    """Everything about one connection.

    Args:
        name: the connection's name, for messages.
        driver: "redis" (a server, also Valkey), "embedded" (the private engine), "sentinel" (a primary that
            sentinels name) or "cluster".
        host: name or address of the server.
        port: 1 to 65535.
        path: a unix socket; goes before host and port.
        directory: where the embedded engine keeps its data; None keeps nothing. A relative path is taken from
            the working directory.
        username: ACL user.
        password: never shown.
        db: number of the database.
        protocol: 2 or 3: that RESP version, with its reply shapes as in redis-py. None (the default): RESP3 on
            the wire, redis-py's default shapes.
        decode_responses: text (UTF-8) if true, bytes if not.
        client_name: shown in CLIENT LIST.
        health_check: seconds between two pings of an idle connection; 0 sends none.
        timeouts: how long to wait.
        limits: what to use at most.
        retry: what to do when a try fails.
        tls: None for plain connections.
        breaker: None, the default, lets every command wait for its deadline while the server is away.
        credential_provider: asked for the credentials at every connect, in place of username and password: a
            function, plain (called in a thread) or async, that returns a password or (username, password), or
            an object of redis-py's CredentialProvider kind.
        measure_latency: keep a histogram for `client.stats()`.
        key_prefix: put in front of every key of every command, and taken off the keys in replies; None for none.
            It has none of the characters `*?[]^\\`, which mean something in a pattern.
        nodes: the sentinels' addresses, as `host:port`; without a port 26379. For a cluster, some of its nodes;
            without a port 6379.
        address_map: where nodes are reached that announce other addresses than this process can use, as behind
            NAT: a mapping from the announced "host:port" to "host:port", or a function from (host, port) to
            (host, port). It is asked for each address that a cluster or a sentinel names; None takes them as
            they are.
        service: the name under which the sentinels know the primary.
        sentinel_username: ACL user at the sentinels; theirs are other users than the servers'.
        sentinel_password: of that user; never shown.
        sentinel_tls: None for plain connections to the sentinels; `tls` is for those to the servers.
        read_from: "primary", or "replica" for commands that only read, on the shared wire: what a replica has
            may be older. On a cluster also "nearest", by measured round trip.

    Raises:
        ConfigurationError: names the field, the value (never a secret) and what is allowed.
    """

    _RULES: ClassVar[Mapping[str, _rules.Rule]] = _rules.SETTINGS
    _ALWAYS_SHOWN: ClassVar[frozenset[str]] = frozenset({"name", "driver"})

    name: str = "redis"
    driver: str = "redis"
    host: str = "127.0.0.1"
    port: int = 6379
    path: str | None = None
    directory: str | None = None
    username: str | None = None
    password: str | None = None
    db: int = 0
    protocol: int | None = None
    decode_responses: bool = True
    client_name: str | None = None
    health_check: float = 15.0
    timeouts: Timeouts = Timeouts()
    limits: Limits = Limits()
    retry: Retry = Retry()
    tls: TLS | None = None
    breaker: Breaker | None = None
    credential_provider: Any = None
    measure_latency: bool = False
    key_prefix: str | None = None
    nodes: tuple[str, ...] = ()
    address_map: Any = None
    service: str | None = None
    sentinel_username: str | None = None
    sentinel_password: str | None = None
    sentinel_tls: TLS | None = None
    read_from: str = "primary"

    def __post_init__(self) -> None:
        for field in ("username", "password", "sentinel_username", "sentinel_password"):
            if getattr(self, field) == "":  # an unset variable; AUTH with it would always fail
                msgspec.structs.force_setattr(self, field, None)
        named = self.name if isinstance(self.name, str) else None
        for field, rule in self._RULES.items():
            _rules.check(named, field, getattr(self, field), rule)
        self._check_groups()
        if self.nodes:
            msgspec.structs.force_setattr(
                self,
                "nodes",
                _addresses.whole(self.nodes, 6379 if self.driver == "cluster" else _SENTINEL_PORT),
            )
        if self.address_map is not None and not callable(self.address_map):  # in one spelling, and hashable
            msgspec.structs.force_setattr(self, "address_map", _addresses.pairs(self.address_map))
        self._check_together()
        if self.directory is not None:
            # the engine is looked up by its folder, so one folder must have one name
            whole = str(Path(self.directory).expanduser().resolve())
            msgspec.structs.force_setattr(self, "directory", whole)

    def _check_groups(self) -> None:
        for field, kind in _KINDS.items():
            value = getattr(self, field)
            if isinstance(value, kind) or (field in _OPTIONAL and value is None):
                continue
            allowed = f"a {kind.__name__} object or a mapping" + (", or None" if field in _OPTIONAL else "")
            raise self._problem(field, f"is of type {type(value).__name__}", allowed)

    def _check_together(self) -> None:
        if self.driver == "embedded":
            for field in ("path", "tls"):
                if getattr(self, field) is not None:
                    raise self._problem(field, "is set", 'None with driver "embedded"')
        elif self.directory is not None:
            raise self._problem("directory", f"is {self.directory!r}", 'None unless the driver is "embedded"')
        if self.path is not None and self.tls is not None:
            raise self._problem("tls", "is set", "None with a unix socket")
        if self.read_from == "nearest" and self.driver != "cluster":
            raise self._problem(
                "read_from", "is 'nearest'", "'primary' or 'replica' unless the driver is \"cluster\""
            )
        if self.address_map is not None and self.driver not in ("cluster", "sentinel"):
            raise self._problem("address_map", "is set", 'None unless the driver is "cluster" or "sentinel"')
        if self.driver == "cluster":
            self._check_cluster()
        elif self.driver == "sentinel":
            self._check_sentinel()
        else:
            for field in _OF_SENTINELS:
                if getattr(self, field) not in ((), None, "primary"):
                    raise self._problem(field, "is set", 'nothing unless the driver is "sentinel"')

    def _check_cluster(self) -> None:
        if not self.nodes:
            msgspec.structs.force_setattr(self, "nodes", (f"{self._host_in_brackets}:{self.port}",))
        for field, plain in (("path", None), ("db", 0), ("service", None)):
            if getattr(self, field) != plain:
                raise self._problem(field, f"is {getattr(self, field)!r}", f'{plain} with driver "cluster"')

    def _check_sentinel(self) -> None:
        if not self.nodes:
            raise self._problem("nodes", "is empty", "at least one sentinel's address, as host:port")
        if self.service is None:
            raise self._problem("service", "is None", "the name under which the sentinels know the primary")
        if self.path is not None:
            raise self._problem("path", "is set", 'None with driver "sentinel"')

    def _problem(self, field: str, what: str, allowed: str) -> ConfigurationError:
        message = f"{_rules.prefix(self.name)}{field} {what}; allowed: {allowed}"
        return ConfigurationError(message, field=field, allowed=allowed)

    @property
    def address(self) -> str:
        """Where the connection goes, without secrets: `127.0.0.1:6379`, `/run/x.sock`, `embedded:/dir`,
        `mymaster@h1:26379`, `cluster:h1:6379`.
        """
        if self.driver == "embedded":
            return f"embedded:{self.directory}" if self.directory else "embedded"
        if self.driver == "sentinel":
            return f"{self.service}@{','.join(self.nodes)}"
        if self.driver == "cluster":
            return "cluster:" + ",".join(self.nodes or ())
        if self.path is not None:
            return self.path
        return f"{self._host_in_brackets}:{self.port}"

    @property
    def url(self) -> str:
        """The connection as a URL, the password masked."""
        if self.driver == "embedded":
            return f"embedded://{quote(self.directory or '')}"
        secret = f":{_rules.MASK}" if self.password is not None else ""
        user = quote(self.username or "", safe="") + secret
        user = f"{user}@" if user else ""
        if self.path is not None:
            return f"unix://{user}{quote(self.path)}" + (f"?db={self.db}" if self.db else "")
        scheme = "rediss" if self.tls is not None else "redis"
        if self.driver == "cluster":
            return f"{scheme}+cluster://{user}{','.join(self.nodes)}"
        if self.driver == "sentinel":
            service = quote(self.service or "", safe="")
            return f"{scheme}+sentinel://{user}{','.join(self.nodes)}/{service}/{self.db}"
        return f"{scheme}://{user}{self._host_in_brackets}:{self.port}/{self.db}"

    @property
    def _host_in_brackets(self) -> str:
        return f"[{self.host}]" if ":" in self.host else self.host

    @classmethod
    def from_url(cls, url: str, **options: Any) -> Self:
        """Settings from a URL and further options.

        Args:
            url: `redis://`, `rediss://`, `unix://`, `embedded://`, `embedded:///some/dir`, `embedded://./dir`,
                `redis+sentinel://` or `rediss+sentinel://`.
            **options: any option of a mapping, and `name`. What the URL says wins, as in redis-py.

        Raises:
            ConfigurationError: never shows the URL's user or password.
        """
        name = options.pop("name", "redis")
        if not url:
            parse_url(
                url, name
            )  # raises; in a mapping an empty url is an unset variable, here it is a mistake
        return cls.from_mapping(name, {**options, "url": url})

    @classmethod
    def from_mapping(cls, name: str, mapping: Mapping[str, Any]) -> Self:
        """Settings from one connection's mapping, as in `config/database.py`. Text is cast where it can be.

        Args:
            name: the connection's name.
            mapping: options, flat or nested; a `url` wins over the others.

        Raises:
            ConfigurationError: names the connection, the option, the value (never a secret) and what is allowed.
        """
        _rules.check(None, "name", name, _rules.SETTINGS["name"])
        flat = read_options(name, mapping)
        fields = {key: value for key, value in flat.items() if "." not in key}
        try:
            for group, kind in _KINDS.items():
                parts = {
                    key.partition(".")[2]: value for key, value in flat.items() if key.startswith(f"{group}.")
                }
                if group in SECURED:
                    fields[group] = _tls(fields.get(group), parts)
                elif parts:
                    fields[group] = _merged(kind, fields.get(group), parts)
        except ConfigurationError as error:
            # the parts do not know which connection they are for
            raise ConfigurationError(
                f"{_rules.prefix(name)}{error}", field=error.field, value=error.value, allowed=error.allowed
            ) from None
        return cls(name=name, **fields)


_KINDS: dict[str, type[Checked]] = {
    "timeouts": Timeouts,
    "limits": Limits,
    "retry": Retry,
    "breaker": Breaker,
    "tls": TLS,
    "sentinel_tls": TLS,
}
_OPTIONAL = frozenset({"tls", "breaker", "sentinel_tls"})
_OF_SENTINELS = ("nodes", "service", "sentinel_username", "sentinel_password", "sentinel_tls", "read_from")
_SENTINEL_PORT = 26379


def _merged(kind: type[_Part], given: Any, parts: dict[str, Any]) -> _Part:
    """An object of `kind` with `parts`, on top of one that was given."""
    return msgspec.structs.replace(given, **parts) if isinstance(given, kind) else kind(**parts)


def _tls(given: Any, parts: dict[str, Any]) -> Any:
    """TLS is on when it is asked for or when a part of it is set, unless it is switched off in words."""
    if given is False:
        return None
    if given is True or (given is None and parts):
        return TLS(**parts)
    return _merged(TLS, given, parts) if parts else given
