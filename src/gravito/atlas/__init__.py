"""Connections: `DB` and `Redis`, every Redis command, pipelines, messages, Lua, and an engine of one's own."""

from gravito.atlas._cluster_client import ClusterClient
from gravito.atlas.client import Client
from gravito.atlas.config import TLS, Breaker, Limits, Retry, Settings, Timeouts
from gravito.atlas.facade import DB, Redis
from gravito.atlas.pipeline import Pipeline
from gravito.atlas.script import Script
from gravito.atlas.subscription import Message, Subscription
from gravito.atlas.wire.meter import Event, Stats

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
