"""Gravito: connections, cache, messaging and jobs on Redis and Valkey."""

__version__ = "0.1.0"
