"""Opening a wire: the socket, TLS, the handshake, and every failure in words that say what to do."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import re
import socket
import ssl
from typing import Any

from gravito import errors
from gravito.atlas.config import Settings
from gravito.atlas.wire import handshake, resp, tls
from gravito.atlas.wire.connection import Wire
from gravito.atlas.wire.credentials import current_credentials
from gravito.atlas.wire.dial import dial
from gravito.atlas.wire.entry import Batch, Spec
from gravito.atlas.wire.handshake import Credentials, Step
from gravito.atlas.wire.meter import Meter

_KEEPALIVE = (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3))  # seconds, seconds, probes
_SPEC = Spec.of("handshake")
_ERRNO = re.compile(r"\[Errno (\d+)\]")


async def open_wire(settings: Settings, meter: Meter | None = None) -> Wire:
    """A wire that is connected and has shaken hands, within `settings.timeouts.connect` seconds.

    Raises RefusedError, NameResolutionError, TLSError, AuthenticationError, LoadingError, ProtocolError,
    ConnectTimeoutError, EngineError or another ConnectionError; each names the connection and the address.
    """
    where = _where(settings)
    wire: Wire | None = None
    deadline = asyncio.get_running_loop().time() + settings.timeouts.connect
    try:
        credentials = await current_credentials(settings)
        async with asyncio.timeout_at(deadline):
            wire = await _open_socket(settings, meter)
            await _shake_hands(wire, settings, credentials, where)
    except TimeoutError as error:
        if wire is not None:
            wire.close()
        raise errors.ConnectTimeoutError(
            f"{where} did not answer within {settings.timeouts.connect:g} s. Is the address right, and is the server "
            "reachable and not overloaded? timeouts.connect sets how long to wait."
        ).about(node=settings.address) from error
    except BaseException as error:  # a cancelled handshake too: its wire cannot be used by anybody else
        if wire is not None:
            wire.close()
        translated = _translate(error, where, settings.tls is not None)
        if isinstance(error, errors.GravitoError):
            error.about(node=settings.address)
        if translated is error:
            raise
        raise translated.about(node=settings.address) from error
    wire.reset_timeout(settings.timeouts.command)
    wire.watch_health(settings.health_check)
    return wire


def _where(settings: Settings) -> str:
    return f"connection '{settings.name}' ({settings.address})"


async def _open_socket(settings: Settings, meter: Meter | None) -> Wire:
    loop = asyncio.get_running_loop()

    def make() -> Wire:
        return Wire(
            loop, settings.address, settings.limits, None, meter
        )  # the handshake has the deadline of connecting

    path = settings.path
    if settings.driver == "embedded":
        from gravito.atlas.embedded import engine_for  # noqa: PLC0415  # only who uses the engine pays for it

        path = await loop.run_in_executor(None, engine_for(settings.directory).ensure)
    if path is not None:
        return (await loop.create_unix_connection(make, path))[1]
    options: dict[str, Any] = {}
    if settings.tls is not None:
        options["ssl"] = tls.context_of(settings.tls, settings.name)
        options["server_hostname"] = settings.host
        options["ssl_handshake_timeout"] = settings.timeouts.connect * tls.HANDSHAKE_SHARE
    sock = await dial(settings.host, settings.port)
    try:
        transport, wire = await loop.create_connection(make, sock=sock, **options)
    except ConnectionAbortedError as error:  # what asyncio raises when ssl_handshake_timeout has passed
        raise tls.stalled(_where(settings), settings.timeouts.connect * tls.HANDSHAKE_SHARE) from error
    _keep_alive(transport.get_extra_info("socket"))
    return wire


def _keep_alive(sock: Any) -> None:
    """Let the kernel find out about a peer that vanished, also below a command that may block for ever."""
    if sock is None:
        return
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in _KEEPALIVE:
            if hasattr(socket, option):
                sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)


async def _shake_hands(wire: Wire, settings: Settings, credentials: Credentials, where: str) -> None:
    plan = handshake.steps(settings.protocol or 3, credentials, settings.db, settings.client_name)
    replies = await _ask(wire, plan)
    for step, reply in zip(plan, replies, strict=False):
        handshake.check(step, reply, where)
    if replies and isinstance(replies[0], dict):
        wire.client_id = replies[0].get("id", 0)
    if len(replies) < len(plan):
        assert wire.ended is not None
        raise wire.ended from wire.ended.__cause__


async def _ask(wire: Wire, plan: list[Step]) -> list[Any]:
    """The replies; fewer than were asked for if the wire ended, for the last of them may say why."""
    # One write: a second one would fail on a connection that the server has closed with a last word (TLS 1.3 says
    # so that it wants a client's certificate), and asyncio would not read that word any more.
    future = asyncio.get_running_loop().create_future()
    packed = b"".join([resp.encode(step.args) for step in plan])
    batch = Batch(future, packed, _SPEC, None, True, need=len(plan))
    wire.send(batch)
    try:
        await future
    except errors.GravitoError:
        if wire.ended is None:
            raise
    return batch.replies


def _all_refused(error: Exception) -> bool:
    """asyncio joins the failures of a name's several addresses to one text."""
    numbers = set(_ERRNO.findall(str(error))) if isinstance(error, OSError) and error.errno is None else set()
    return numbers == {str(errno.ECONNREFUSED)}


def _translate(error: BaseException, where: str, secured: bool) -> Any:
    """One boundary for what sockets, TLS and name resolution raise."""
    if isinstance(error, errors.GravitoError) or not isinstance(error, Exception):
        if isinstance(error, errors.ConnectionLostError):
            # TLS 1.3 tells of a client's certificate only after the handshake
            if isinstance(error.__cause__, ssl.SSLError):
                return tls.refusal(error.__cause__, where)
            if secured:
                return tls.cut_off(where)
            return errors.ConnectionLostError(
                f"{where} closed the connection during the handshake: {error}. If its port speaks TLS, use rediss://."
            )
        if isinstance(error, errors.ProtocolError) and where not in str(error):  # the wire knows no name
            return errors.ProtocolError(f"{where}: {error}")
        if isinstance(error, errors.LoadingError):
            return errors.LoadingError(f"{where} is loading its data set; try again shortly")
        if isinstance(error, errors.MaxClientsError):
            return errors.MaxClientsError(f"{where} takes no more clients (maxclients): {error}")
        return error
    if isinstance(error, (ConnectionRefusedError, FileNotFoundError)) or _all_refused(error):
        return errors.RefusedError(
            f"{where}: nobody listens there. Start the server, or correct host, port or path."
        )
    if isinstance(error, socket.gaierror):
        return errors.NameResolutionError(f"{where}: the host name does not resolve ({error.strerror}).")
    if isinstance(error, ssl.SSLError):
        return tls.refusal(error, where)
    if isinstance(error, OSError):
        return errors.ConnectionError(f"{where}: {error.strerror or error}")
    return error
