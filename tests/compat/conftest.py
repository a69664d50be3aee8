"""A private engine for the comparison with redis-py, and a clean state of it for each test."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import pytest
import redis

from gravito.atlas import embedded


@pytest.fixture(scope="session")
def socket_path(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The unix socket of an engine that only these tests use."""
    engine = embedded.engine_for(str(tmp_path_factory.mktemp("compat")))
    yield engine.ensure()
    engine.stop()


@pytest.fixture
def wipe(socket_path: str) -> Iterator[Callable[[], None]]:
    """Bring the engine back to its first state; done before the test too."""
    with redis.Redis(unix_socket_path=socket_path) as client:

        def wipe() -> None:
            client.flushall()
            client.script_flush()
            with contextlib.suppress(redis.ResponseError):  # older than Redis 7
                client.function_flush()
            client.config_set("maxmemory-samples", 5)
            client.config_set("slowlog-log-slower-than", 10_000)
            client.slowlog_reset()
            client.config_resetstat()
            client.acl_log_reset()

        wipe()
        yield wipe
