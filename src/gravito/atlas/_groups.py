"""The groups of a connection's settings: timeouts, limits, retry, breaker, TLS. Checked when they are built."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import msgspec

from gravito.atlas import _rules
from gravito.errors import ConfigurationError


class Checked(msgspec.Struct, frozen=True, kw_only=True):
    """A frozen object whose fields are checked against a table of rules."""

    _RULES: ClassVar[Mapping[str, _rules.Rule]] = {}
    _GROUP: ClassVar[str] = ""  # the name of the field of Settings that holds such an object
    _ALWAYS_SHOWN: ClassVar[frozenset[str]] = frozenset()  # fields that a repr names at their defaults, too

    def __post_init__(self) -> None:
        for field, rule in self._RULES.items():
            _rules.check(None, f"{self._GROUP}.{field}", getattr(self, field), rule)

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return list(self._shown())

    def _shown(self) -> Iterator[tuple[str, Any]]:
        for field in msgspec.structs.fields(self):
            value = getattr(self, field.name)
            default = field.default
            if default is msgspec.NODEFAULT and field.default_factory is not msgspec.NODEFAULT:
                default = field.default_factory()
            if value == default and field.name not in self._ALWAYS_SHOWN:
                continue
            rule = self._RULES.get(field.name)
            yield field.name, _rules.MASK if rule is not None and rule.secret else value

    def __repr__(self) -> str:
        # only what differs from the default: thirty fields would hide the two that matter
        shown = ", ".join(f"{name}={value!r}" for name, value in self._shown())
        return f"{type(self).__name__}({shown})"


class Timeouts(Checked, frozen=True, kw_only=True):
    """How long to wait, in seconds. None means without limit where it is allowed.

    Args:
        connect: for a connection, its TLS and its handshake together.
        command: for a reply, and before that for room among the commands in flight; None allowed.
        lease: for a leased wire; None allowed.
        drain: for the commands in flight when a client is closed; 0 does not wait.

    Raises:
        ConfigurationError: a value that is not a positive number.
    """

    _RULES: ClassVar[Mapping[str, _rules.Rule]] = _rules.TIMEOUTS
    _GROUP: ClassVar[str] = "timeouts"

    connect: float = 5.0
    command: float | None = 5.0
    lease: float | None = 5.0
    drain: float = 5.0


class Limits(Checked, frozen=True, kw_only=True):
    """What a client may use at most.

    Args:
        in_flight: commands that are written and not answered; further ones wait their turn.
        in_flight_bytes: bytes of these commands.
        leased_wires: connections beside the shared one.
        lease_over: a command whose encoding is longer than this many bytes takes a leased wire.
        push_buffer: messages that a subscription keeps for a slow reader.
        reply_bytes: bytes of one reply; a longer one ends its connection, so that no peer can fill the memory.

    Raises:
        ConfigurationError: a value that is not a whole number of at least 1.
    """

    _RULES: ClassVar[Mapping[str, _rules.Rule]] = _rules.LIMITS
    _GROUP: ClassVar[str] = "limits"

    in_flight: int = 16_384
    in_flight_bytes: int = 64 * 1024 * 1024
    leased_wires: int = 64
    lease_over: int = 1024 * 1024
    push_buffer: int = 10_000
    reply_bytes: int = 1024 * 1024 * 1024


class Retry(Checked, frozen=True, kw_only=True):
    """How often to try again, and how long to wait between: exponential backoff with full jitter.

    Args:
        attempts: tries after the first; 0 never tries again.
        writes: send a write again, too, when its reply was lost. It may then be applied twice; without this it
            fails with `maybe_applied` set.
        base: seconds; the upper end of the first wait, doubled for each further one.
        cap: seconds; no wait is longer.

    Raises:
        ConfigurationError: a negative value, or a base above the cap.
    """

    _RULES: ClassVar[Mapping[str, _rules.Rule]] = _rules.RETRY
    _GROUP: ClassVar[str] = "retry"

    attempts: int = 3
    base: float = 0.02
    cap: float = 1.0
    writes: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.base > self.cap:
            allowed = f"at most retry.cap, which is {self.cap!r}"
            message = f"retry.base is {self.base!r}; allowed: {allowed}"
            raise ConfigurationError(message, field="retry.base", value=self.base, allowed=allowed)


class Breaker(Checked, frozen=True, kw_only=True):
    """Fail at once while a server is known to be away, instead of waiting for each command's deadline.

    Args:
        failures: attempts to connect that fail in a row before it opens.
        reset: seconds for which it stays open; then one attempt decides.

    Raises:
        ConfigurationError: a value that is not positive.
    """

    _RULES: ClassVar[Mapping[str, _rules.Rule]] = _rules.BREAKER
    _GROUP: ClassVar[str] = "breaker"

    failures: int = 5
    reset: float = 1.0


class TLS(Checked, frozen=True, kw_only=True):
    """TLS on the connection. `TLS()` trusts the system's certificates and checks the host name.

    Args:
        ca_file: certificates to trust instead of the system's (PEM).
        cert_file: this client's certificate (PEM), for servers that ask for one.
        key_file: the key that belongs to it, if it is not in the same file.
        key_password: opens the key; never shown.
        check_hostname: the certificate must be for this host. Of no effect without `verify`.
        verify: the certificate must be signed by somebody trusted. False is for tests alone.

    Raises:
        ConfigurationError: a value of the wrong type, or a key without a certificate.
    """

    _RULES: ClassVar[Mapping[str, _rules.Rule]] = _rules.TLS
    _GROUP: ClassVar[str] = "tls"

    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    key_password: str | None = None
    check_hostname: bool = True
    verify: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.key_file is not None and self.cert_file is None:
            allowed = "the path of the certificate that tls.key_file belongs to"
            raise ConfigurationError(
                f"tls.cert_file is None; allowed: {allowed}", field="tls.cert_file", allowed=allowed
            )
