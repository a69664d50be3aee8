"""`DB` and `Redis`: the process's connections, at hand everywhere. Importing this does no I/O.

`DB` knows the connections by name. `Redis` is the default one: whatever is asked of it is asked of
`DB.connection()`, at the moment of the call, so that a new configuration or default shows at once::

    await Redis.set("greeting", "hello")
    await Redis.connection("cache").get("greeting")
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

from gravito.atlas.client import Client
from gravito.atlas.manager import ConnectionManager

__all__ = ["DB", "Redis"]

DB = ConnectionManager()
"""The connections of this process."""

if TYPE_CHECKING:

    class RedisFacade(Client):
        """What a type checker sees: a client, and `connection`."""

        def connection(self, name: str | None = None) -> Client: ...

else:

    class RedisFacade:
        """Forwards every attribute to the default connection's client."""

        __slots__ = ()

        def connection(self, name: str | None = None) -> Client:
            """The client of a connection; None for the default one."""
            return DB.connection(name)

        def __getattr__(self, attribute: str) -> Any:
            # Tools probe objects for names such as __wrapped__ or _repr_html_. A probe must not go and look for
            # a configuration, so names with two underscores, and private ones that no client has, end here.
            if attribute.startswith("__") or (attribute.startswith("_") and not hasattr(Client, attribute)):
                raise AttributeError(f"Redis has no attribute {attribute!r}")
            return getattr(DB.connection(), attribute)

        def __setattr__(self, attribute: str, value: object) -> NoReturn:
            raise AttributeError(f"{attribute!r} cannot be set on Redis; set it on DB.connection()")

        def __dir__(self) -> list[str]:
            return sorted({*object.__dir__(self), *dir(Client)})

        def __repr__(self) -> str:
            return f"<Redis, the default connection of {DB!r}>"


Redis = RedisFacade()
"""The default connection."""
