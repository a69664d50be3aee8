"""Connections: `DB` and `Redis`, every Redis command, pipelines, messages, Lua, and an engine of one's own."""

from gravito.atlas.client import Client
from gravito.atlas.config import TLS, Limits, Retry, Settings, Timeouts
from gravito.atlas.facade import DB, Redis
from gravito.atlas.pipeline import Pipeline
from gravito.atlas.pubsub import Message, Subscription
from gravito.atlas.script import Script

__all__ = [
    "DB",
    "TLS",
    "Client",
    "Limits",
    "Message",
    "Pipeline",
    "Redis",
    "Retry",
    "Script",
    "Settings",
    "Subscription",
    "Timeouts",
]
