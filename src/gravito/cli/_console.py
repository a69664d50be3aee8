"""What `gravito horizon console` does: the pages of the console, served from this process."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import signal
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, NoReturn

import typer

from gravito.errors import ConfigurationError, GravitoError
from gravito.horizon import Horizon
from gravito.horizon._logs import log_lines

if TYPE_CHECKING:
    from gravito.horizon.console import Console

__all__ = ["TOKEN", "run_console"]

# An environment variable: an argument would be seen by every user of the machine.
TOKEN = "GRAVITO_CONSOLE_TOKEN"  # noqa: S105  # the name of the variable


def run_console(horizon: Horizon, host: str, port: int, names: Sequence[str]) -> None:
    """Serve until Ctrl-C or SIGTERM.

    Args:
        horizon: whose queues are shown.
        host: address to listen on; one that other machines reach needs a token.
        port: TCP port; 0 for any that is free.
        names: further host names that the console answers to.
    """
    try:
        import uvicorn  # noqa: F401, PLC0415  # the extra is only needed here

        from gravito.horizon.console import LOOPBACK, Token, is_loopback  # noqa: PLC0415
        from gravito.horizon.console._security import read_hosts  # noqa: PLC0415
    except ModuleNotFoundError as missing:
        if missing.name not in ("uvicorn", "starlette", "jinja2", "prometheus_client"):
            raise
        _fail(f"The console needs the package {missing.name}: pip install 'gravito[console]'.")
    token = os.environ.get(TOKEN, "")
    if not token and not is_loopback(host):
        _fail(
            f"{host} is reachable from other machines: set a token in {TOKEN}, or use --host 127.0.0.1.\n"
            'One is made by: python -c "import secrets; print(secrets.token_urlsafe())"'
        )
    own = [] if host in ("0.0.0.0", "::", "") else [host]  # noqa: S104  # compared
    try:
        known = list(dict.fromkeys([*read_hosts([*LOOPBACK, *own, *names]), *_machine()]))
        console = horizon.console(auth=Token(token) if token else None, allowed_hosts=known)
    except ConfigurationError as error:
        _fail(f"{'--allowed-host' if error.field == 'allowed_hosts' else TOKEN}: {error}.")
    listener = _listen(host, port)
    shown = f"[{host}]" if ":" in host else host
    typer.echo(f"Console at http://{shown}:{listener.getsockname()[1]}/; stop with Ctrl-C.")
    typer.echo(f"It answers to {', '.join(known)}{'' if token else '; without a token, this machine only'}.")
    log_lines(logging.WARNING)
    asyncio.run(_serve(horizon, console, listener))
    typer.echo("Stopped.")


def _machine() -> tuple[str, ...]:
    """This machine's name, if a browser could ask for it."""
    from gravito.horizon.console._security import read_hosts  # noqa: PLC0415  # the extra is only needed here

    try:
        return read_hosts([socket.gethostname()])
    except ConfigurationError:
        return ()


async def _serve(horizon: Horizon, console: Console, listener: socket.socket) -> None:
    import uvicorn  # noqa: PLC0415

    class Server(uvicorn.Server):
        @contextmanager
        def capture_signals(self) -> Iterator[None]:
            yield  # they are ours: uvicorn's way ends the process by the signal, with a status that is no 0

    settings = uvicorn.Config(
        console, log_level="warning", access_log=False, server_header=False, timeout_graceful_shutdown=5
    )
    server = Server(settings)

    def stop() -> None:
        console.close()  # open live pages would be waited for
        server.should_exit = True

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    try:
        await server.serve(sockets=[listener])
    finally:
        try:
            await horizon.aclose()
            await horizon.client.aclose()
        except GravitoError as error:  # a server that is away is no reason to fail at the end
            typer.echo(f"The connection could not be closed: {error}", err=True)


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen()  # from here on it may be told where: who comes before the server is up, waits
    except socket.gaierror as error:
        _fail(f"--host {host} does not resolve: {error}.")
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            _fail(f"Port {port} on {host} is taken by another program; choose another one with --port.")
        _fail(f"Cannot listen on {host}, port {port}: {error.strerror}.")
    return listener


def _fail(message: str) -> NoReturn:
    typer.echo(f"Error: {message}", err=True)
    raise typer.Exit(2)
