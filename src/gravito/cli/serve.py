"""`gravito serve`: the embedded engine in the foreground, on a TCP port, for other programs; or a whole topology."""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
from contextlib import closing
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from gravito.atlas.embedded import Directive, Engine
from gravito.cli._signals import UntilSignal
from gravito.cli._topologies import Shape, run_topology
from gravito.errors import EngineError

__all__ = ["serve"]

# An environment variable: an argument would be seen by every user of the machine.
PASSWORD = "GRAVITO_SERVE_PASSWORD"  # noqa: S105  # the name of the variable


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
    cluster: Annotated[
        int | None,
        typer.Option("--cluster", min=3, help="A cluster of so many primaries, on ports from --port on."),
    ] = None,
    sentinel: Annotated[
        bool,
        typer.Option("--sentinel", help="A primary, its replicas, and three sentinels 20,000 ports above."),
    ] = False,
    replicas: Annotated[
        int | None,
        typer.Option(
            "--replicas", min=0, help="Of each primary: by default 0 in a cluster, 2 with sentinels."
        ),
    ] = None,
) -> None:
    """Run the embedded engine on a TCP port, in the foreground, until Ctrl-C.

    Example: gravito serve --port 6380 --dir ./data

    A whole topology of this machine, in memory: gravito serve --cluster 3 --replicas 1, or gravito serve --sentinel

    A password for the clients comes from the environment variable GRAVITO_SERVE_PASSWORD.
    """
    password = os.environ.get(PASSWORD, "")
    shape = _shape(cluster, sentinel, replicas, directory)
    try:
        address = _address(host)
        if not password and not ipaddress.ip_address(address).is_loopback:
            _fail(
                f"{host} is reachable from other machines: set a password in {PASSWORD}, or use --host 127.0.0.1."
            )
        if shape is not None:
            _serve_topology(shape, address, port, password)
            return
        _check_free(address, port)
        secrets: dict[str, Directive] = {"requirepass": password} if password else {}
        engine = Engine(directory, directives=secrets, port=port, host=address)
        status = _run(engine, host, bool(password))
    except EngineError as error:
        _fail(str(error))
    if status is not None:
        _fail(f"The engine has ended by itself, with status {status}.")
    typer.echo("Stopped.")


def _shape(cluster: int | None, sentinel: bool, replicas: int | None, directory: Path | None) -> Shape | None:
    """Which topology is asked for; None for one server."""
    if cluster is not None and sentinel:
        _fail("--cluster and --sentinel are two topologies; choose one.")
    if cluster is None and not sentinel:
        if replicas is not None:
            _fail("--replicas needs --cluster or --sentinel.")
        return None
    if directory is not None:
        _fail("--dir keeps the data of one server; a topology of this command keeps none.")
    return Shape(primaries=cluster or 0, replicas=replicas if replicas is not None else 2 * sentinel)


def _serve_topology(shape: Shape, address: str, port: int, password: str) -> None:
    if ipaddress.ip_address(address).is_unspecified:
        _fail(f"--host {address} is no address that nodes could tell others; name one of this machine's.")
    for each in shape.ports(port):
        if each > 65535:
            _fail(f"--port {port} is too high: this topology needs port {each} too.")
        _check_free(address, each)
    if not run_topology(shape, address, port, password or None):
        _fail("Every process of the topology has ended.")
    typer.echo("Stopped.")


def _run(engine: Engine, host: str, password: bool) -> int | None:
    """Serve until a signal (None) or the engine's own end (its status)."""
    with UntilSignal(engine.stop):
        engine.ensure()
        typer.echo(_state(engine, host, password))
        return engine.wait()
    return None


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
