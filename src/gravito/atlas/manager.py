"""Connections by name: from a configuration to clients, each made at its first use."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec

from gravito.atlas._rules import suggestion
from gravito.atlas._sources import Configuration, load_configuration, read_connection
from gravito.atlas.client import Client
from gravito.atlas.config import Settings
from gravito.errors import ConfigurationError

__all__ = ["ConnectionManager"]

_logger = logging.getLogger("gravito.atlas")


class ConnectionManager:
    """Names and their clients. May be used from any thread; only what is `async` needs a running event loop.

    Nothing is read, let alone connected, before it is needed: the configuration is found at the first use (see
    `gravito.atlas._sources` for where), a client is made when its name is first asked for, and it connects at its
    first command.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()  # guards everything below; never held while something is awaited
        self._found: Configuration | None = None  # None until the first use
        self._loading = False  # a configuration file that asks for a connection would load itself again
        self._added: dict[str, Settings] = {}  # by add_connection; goes before `_found`
        self._chosen: str | None = None  # by set_default_connection; goes before the configured default
        self._clients: dict[str, Client] = {}  # made so far
        self._retired: list[Client] = []  # replaced by a new configuration, and still to be closed

    def __repr__(self) -> str:
        if self._found is None and not self._added:
            return "<DB, not configured yet>"
        if self._found is None:
            return f"<DB {', '.join(self._added)}, not configured yet>"
        known = ", ".join(f"{name!r} {settings.address}" for name, settings in self._known().items())
        return f"<DB {known}, default {self.default_connection!r}>"

    # -- configuration ---------------------------------------------------------------------------------------

    def configure(self, mapping: Mapping[str, Any]) -> None:
        """Take this configuration instead of looking for one.

        Connections whose settings change get a new client at the next use; the old one is closed by
        `disconnect_all`. Connections that were added by name stay, unless the mapping has the same name.

        Args:
            mapping: `{"default": name, "connections": {name: options, or a url, or Settings}}`.

        Raises:
            ConfigurationError: names the connection, the option, the value (never a secret) and what is allowed.
                The configuration is then as it was before.
        """
        found = load_configuration(mapping, Path.cwd(), os.environ)
        with self._lock:
            self._found = found
            self._chosen = None
            for name in found.connections:
                self._added.pop(name, None)
            self._retire_changed()

    @property
    def configuration(self) -> Configuration:
        """The connections that are known, the default, and where this was found (`origin`)."""
        with self._lock:
            found = self._load()
            return msgspec.structs.replace(found, default=self.default_connection, connections=self._known())

    def add_connection(self, name: str, options: Mapping[str, Any] | str | Settings) -> None:
        """Add one connection, or replace it; the rest of the configuration stays as it is.

        Args:
            name: what to call it.
            options: options as in a configuration, a URL, or settings.

        Raises:
            ConfigurationError: names the option, the value (never a secret) and what is allowed.
        """
        settings = read_connection(name, options)
        with self._lock:
            self._added[name] = settings
            self._retire_changed()

    def has_connection(self, name: str) -> bool:
        """True if there are settings for this name; says nothing about a server."""
        with self._lock:
            if name not in self._added:
                self._load()
            return name in self._known()

    def connection_names(self) -> list[str]:
        """All names, in the order they were configured and added."""
        with self._lock:
            self._load()
            return list(self._known())

    @property
    def default_connection(self) -> str:
        """The name that `connection()` takes when it is given none."""
        with self._lock:
            return self._chosen or self._load().default

    def set_default_connection(self, name: str) -> None:
        """Make another connection the default one.

        Raises:
            ConfigurationError: no connection has this name.
        """
        with self._lock:
            self._settings(name)
            self._chosen = name

    # -- clients ---------------------------------------------------------------------------------------------

    def connection(self, name: str | None = None) -> Client:
        """The client of a connection: the same one each time, as long as its settings stay. No network I/O.

        Args:
            name: None for the default connection.

        Raises:
            ConfigurationError: no connection has this name, or the configuration cannot be used.
        """
        if name is not None:
            client = self._clients.get(name)  # the usual case, and dict.get needs no lock
            if client is not None:
                return client
        with self._lock:
            name = self.default_connection if name is None else name
            client = self._clients.get(name)
            if client is None:
                client = self._clients[name] = Client(self._settings(name))
            return client

    async def reconnect(self, name: str | None = None) -> Client:
        """Close a connection's wires and connect anew.

        Args:
            name: None for the default connection.

        Returns:
            The connection's client, which is still the same one, connected.

        Raises:
            ConfigurationError: no connection has this name.
            ConnectionError: the server cannot be reached; also AuthenticationError, TimeoutError.
        """
        await self.disconnect(name)
        client = self.connection(name)
        await client.ping()
        return client

    async def disconnect(self, name: str | None = None) -> None:
        """Close a connection's wires. Its client stays, and connects again at its next command.

        Args:
            name: None for the default connection.

        Raises:
            ConfigurationError: no connection has this name.
        """
        with self._lock:
            name = self.default_connection if name is None else name
            self._settings(name)
            client = self._clients.get(name)
        if client is not None:
            await client.aclose()

    async def disconnect_all(self) -> None:
        """Close all connections' wires, also of clients that a newer configuration replaced. All are tried.

        Raises:
            GravitoError: the first error; any further ones are logged.
        """
        with self._lock:
            clients = [*self._clients.values(), *self._retired]
            self._retired.clear()
        first: Exception | None = None
        for client in clients:
            try:
                await client.aclose()
            except Exception as error:  # the others have to be closed too
                if first is None:
                    first = error
                else:
                    _logger.error("closing %r failed: %s", client, error)
        if first is not None:
            raise first

    @asynccontextmanager
    async def lifespan(
        self, app: object = None, *, configuration: Mapping[str, Any] | None = None, connect: bool = True
    ) -> AsyncIterator[None]:
        """The connections' time to live, for a program or a web application::

            async with DB.lifespan(): ...

            app = FastAPI(lifespan=DB.lifespan)      # Starlette too

        Args:
            app: what a web framework passes; not used.
            configuration: given to `configure` first.
            connect: connect the default connection at the start, so that a wrong setting shows there and not at
                the first request.

        Raises:
            ConfigurationError: the configuration cannot be used.
            ConnectionError: the server cannot be reached; also AuthenticationError, TimeoutError.
        """
        try:
            if configuration is not None:
                self.configure(configuration)
            if connect:
                await self.connection().ping()
            yield
        finally:
            await self.disconnect_all()

    # -- with the lock held ----------------------------------------------------------------------------------

    def _load(self) -> Configuration:
        if self._found is None:
            if self._loading:
                raise ConfigurationError(
                    "the configuration file asks for a connection while it is being read"
                )
            self._loading = True
            try:
                self._found = load_configuration(None, Path.cwd(), os.environ, self._added)
            finally:
                self._loading = False
        return self._found

    def _known(self) -> dict[str, Settings]:
        configured = self._found.connections if self._found is not None else {}
        return configured | self._added

    def _settings(self, name: str) -> Settings:
        # an added connection must not set off the search for a configuration that it does not need
        if name not in self._added:
            self._load()
        known = self._known()
        if name not in known:
            hint = suggestion(name, known) if isinstance(name, str) else ""
            raise ConfigurationError(
                f"no connection is called {name!r}; allowed: {', '.join(known)}{hint}",
                field="connection",
                value=name,
                allowed=list(known),
            )
        return known[name]

    def _retire_changed(self) -> None:
        known = self._known()
        for name, client in list(self._clients.items()):
            if known.get(name) != client.settings:
                self._retired.append(self._clients.pop(name))
