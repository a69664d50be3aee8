"""The same calls on redis.asyncio.Redis and on ours: equal replies, equal types, equal errors."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from . import calls_data, calls_server, calls_structures
from .agreement import differences, outcomes
from .clients import atlas, redis_py
from .recorder import Family, calls_of

# redis-py's methods for deprecated commands warn; as errors the warnings would keep the calls from being made.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")

FAMILIES = calls_data.FAMILIES + calls_structures.FAMILIES + calls_server.FAMILIES
EITHER_TEXT_OR_BYTES = pytest.mark.parametrize("decode", [True, False], ids=["text", "bytes"])
PROTOCOLS = pytest.mark.parametrize("protocol", [None, 2, 3], ids=["default", "resp2", "resp3"])


def test_the_table_is_large() -> None:
    assert sum(len(calls_of(family)) for family in (*FAMILIES, calls_server.pinned)) >= 700


@EITHER_TEXT_OR_BYTES
@PROTOCOLS
@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.__name__)
async def test_replies_agree(
    family: Family, protocol: int | None, decode: bool, socket_path: str, wipe: Callable[[], None]
) -> None:
    calls = calls_of(family)
    async with redis_py(socket_path, protocol=protocol, decode_responses=decode) as client:
        expected = await outcomes(calls, client)
    wipe()
    async with atlas(socket_path, protocol=protocol, decode_responses=decode) as client:
        actual = await outcomes(calls, client)
    assert not (wrong := differences(calls, expected, actual)), "\n".join(wrong)


@EITHER_TEXT_OR_BYTES
@PROTOCOLS
async def test_a_pinned_connection_agrees(
    protocol: int | None, decode: bool, socket_path: str, wipe: Callable[[], None]
) -> None:
    calls = calls_of(calls_server.pinned)
    async with (
        redis_py(socket_path, protocol=protocol, decode_responses=decode) as client,
        client.client() as own,
    ):
        expected = await outcomes(calls, own)
    wipe()
    async with (
        atlas(socket_path, protocol=protocol, decode_responses=decode) as client,
        client.client() as own,
    ):
        actual = await outcomes(calls, own)
    assert not (wrong := differences(calls, expected, actual)), "\n".join(wrong)
