"""`gravito serve`: the embedded engine in the foreground, on a TCP port, for other programs."""

from __future__ import annotations

import errno
import ipaddress
import os
import signal
import socket
from contextlib import closing
from pathlib import Path
from types import FrameType
from typing import Annotated, NoReturn

import typer

from gravito.atlas.embedded import Directive, Engine
from gravito.errors import EngineError

__all__ = ["serve"]

# An environment variable: an argument would be seen by every user of the machine.
PASSWORD = "GRAVITO_SERVE_PASSWORD"  # noqa: S105  # the name of the variable


class _Stop(BaseException):
    """A signal asked for the end. Not KeyboardInterrupt: waiting for a child treats that one specially."""


def serve(
    port: Annotated[
        int, typer.Option("--port", "-p", min=1, max=65535, help="TCP port to listen on.")
    ] = 6379,
    host: Annotated[
        str,
        typer.Option("--host", help=f"Address to listen on; beyond this machine only with {PASSWORD} set."),
    ] = "127.0.0.1",
    directory: Annotated[
        Path | None,
        typer.Option("--dir", "-d", help="Folder that keeps the data; without one they go at the end."),
    ] = None,
) -> None:
    """Run the embedded engine on a TCP port, in the foreground, until Ctrl-C.

    Example: gravito serve --port 6380 --dir ./data

    A password for the clients comes from the environment variable GRAVITO_SERVE_PASSWORD.
    """
    password = os.environ.get(PASSWORD, "")
    try:
        address = _address(host)
        if not password and not ipaddress.ip_address(address).is_loopback:
            _fail(
                f"{host} is reachable from other machines: set a password in {PASSWORD}, or use --host 127.0.0.1."
            )
        _check_free(address, port)
        secrets: dict[str, Directive] = {"requirepass": password} if password else {}
        engine = Engine(directory, directives=secrets, port=port, host=address)
        status = _run(engine, host, bool(password))
    except EngineError as error:
        _fail(str(error))
    if status is not None:
        _fail(f"The engine has ended by itself, with status {status}.")
    typer.echo("Stopped.")


def _run(engine: Engine, host: str, password: bool) -> int | None:
    """Serve until a signal (None) or the engine's own end (its status)."""
    before = {number: signal.signal(number, _stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        engine.ensure()
        typer.echo(_state(engine, host, password))
        return engine.wait()
    except _Stop:
        for number in before:  # stopping is bounded; a second Ctrl-C must not break it off
            signal.signal(number, signal.SIG_IGN)
        return None
    finally:
        engine.stop()
        for number, handler in before.items():
            signal.signal(number, handler)


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    raise _Stop


def _state(engine: Engine, host: str, password: bool) -> str:
    shown = f"[{host}]" if ":" in host else host
    data = "in memory, gone at the end" if engine.directory is None else f"kept in {engine.directory}"
    return "\n".join(
        [
            f"Serving  redis://{':***@' if password else ''}{shown}:{engine.port}",
            f"Data     {data}",
            f"Engine   pid {engine.pid}, also on unix://{engine.path}",
            "Stop with Ctrl-C.",
        ]
    )


def _address(host: str) -> str:
    """The numeric address of a host name, IPv4 if it has one."""
    try:
        found = socket.getaddrinfo(host or None, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        _fail(f"--host {host} does not resolve: {error}.")
    found.sort(key=lambda entry: entry[0] != socket.AF_INET)
    return str(found[0][4][0])


def _check_free(address: str, port: int) -> None:
    # The engine would say it too, but in its log's words; the little time in between is covered by its error.
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with closing(socket.socket(family, socket.SOCK_STREAM)) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError as error:
            _fail(_why(error, address, port))


def _why(error: OSError, address: str, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"Port {port} on {address} is taken by another program; choose another one with --port."
    if error.errno == errno.EACCES:
        return f"Port {port} needs more rights than this user has; choose one above 1023 with --port."
    if error.errno == errno.EADDRNOTAVAIL:
        return f"{address} is not an address of this machine; choose another one with --host."
    return f"Cannot listen on {address}, port {port}: {error.strerror}."


def _fail(message: str) -> NoReturn:
    typer.echo(f"Error: {message}", err=True)
    raise typer.Exit(1)
