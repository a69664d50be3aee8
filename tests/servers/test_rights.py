"""What the documented user may not do, and what connecting does without rights that it can do without."""

from __future__ import annotations

from typing import Any

import pytest
from redis import Redis
from tests.servers.conftest import PASSWORD

from gravito import errors
from gravito.atlas import Client

APP = {"username": "app", "password": PASSWORD}


@pytest.mark.parametrize(
    "command",
    [
        ("GET", "other:key"),
        ("PUBLISH", "other:channel", "x"),
        ("FLUSHALL",),
        ("KEYS", "*"),
        ("CONFIG", "GET", "*"),
        ("ACL", "LIST"),
        ("EVAL", "return 1", "0"),
        ("CLIENT", "LIST"),
    ],
    ids=" ".join,
)
async def test_refused(command: tuple[str, ...], path: str, protocol: int) -> None:
    async with Client.from_url(f"unix://{path}", protocol=protocol, **APP) as redis:
        with pytest.raises(errors.NoPermissionError):
            await redis.execute(*command)
        assert await redis.get("app:still-here") is None  # the connection goes on


async def test_a_channel_of_others(path: str, protocol: int) -> None:
    async with Client.from_url(f"unix://{path}", protocol=protocol, **APP) as redis:
        with pytest.raises(errors.NoPermissionError):
            await redis.subscribe("other:channel")
        async with await redis.subscribe("app:news") as news:
            await redis.publish("app:news", "x")
            message = await news.get(5)
            assert message is not None
            assert message.data == "x"


async def test_what_connecting_can_do_without(path: str, protocol: int) -> None:
    with Redis(unix_socket_path=path) as plain:
        plain.execute_command("ACL", "SETUSER", "bare", "reset", "on", ">bare", "~*", "-@all", "+get")
    options: dict[str, Any] = {"username": "bare", "password": "bare", "client_name": "web"}
    async with Client.from_url(f"unix://{path}", protocol=protocol, health_check=0.01, **options) as redis:
        assert await redis.get("k") is None
        with pytest.raises(errors.NoPermissionError):
            await redis.ping()
        assert await redis.get("k") is None


async def test_a_database_that_is_refused_is_not_ignored(path: str, protocol: int) -> None:
    with Redis(unix_socket_path=path) as plain:
        plain.execute_command("ACL", "SETUSER", "bare", "reset", "on", ">bare", "~*", "-@all", "+get")
    async with Client.from_url(
        f"unix://{path}", protocol=protocol, username="bare", password="bare", db=1
    ) as redis:
        with pytest.raises(errors.GravitoError, match="refused database 1"):
            await redis.get("k")
