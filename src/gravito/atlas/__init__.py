"""Connections: `DB` and `Redis`, every Redis command, pipelines, messages, Lua, and an engine of one's own."""

from typing import TYPE_CHECKING, Any

from gravito.atlas.client import Client
from gravito.atlas.config import TLS, Breaker, Limits, Retry, Settings, Timeouts
from gravito.atlas.facade import DB, Redis
from gravito.atlas.pipeline import Pipeline
from gravito.atlas.script import Script
from gravito.atlas.subscription import Message, Subscription
from gravito.atlas.wire.meter import Event, Stats

if TYPE_CHECKING:
    from gravito.atlas._cluster_client import ClusterClient

__all__ = [
    "DB",
    "TLS",
    "Breaker",
    "Client",
    "ClusterClient",
    "Event",
    "Limits",
    "Message",
    "Pipeline",
    "Redis",
    "Retry",
    "Script",
    "Settings",
    "Stats",
    "Subscription",
    "Timeouts",
]


def __getattr__(name: str) -> Any:
    """The cluster's client is read from disk by those who have a cluster: it is a fifth of what an import would cost."""
    if name == "ClusterClient":
        from gravito.atlas._cluster_client import ClusterClient  # noqa: PLC0415  # see above

        return ClusterClient
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
