"""The same calls with `key_prefix`: the replies are redis-py's without one, and every key there is has the prefix."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import redis

from gravito import errors

from .agreement import Failure, agree, outcomes
from .clients import atlas, redis_py
from .recorder import Call, Family, calls_of
from .test_parity import FAMILIES, PROTOCOLS

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")

PREFIX = "app:"
# What they answer depends on the key's own name.
_SHOWS_NAMES = ('eval("return {KEYS[1]', "execute_command('CLUSTER KEYSLOT'")


def _agree(call: Call, theirs: Any, ours: Any) -> bool:
    """As without a prefix, but for the text of errors, which holds whole names, and for what is refused."""
    if agree(call, theirs, ours) or str(call).startswith(_SHOWS_NAMES):
        return True
    if not isinstance(theirs, Failure) or not isinstance(ours, Failure):
        return False
    refused = isinstance(ours.error, errors.DataError) and "key_prefix" in str(ours.error)
    return refused or str(ours.error).replace(PREFIX, "") == str(theirs.error)


@PROTOCOLS
@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.__name__)
async def test_replies_agree(
    family: Family, protocol: int | None, socket_path: str, wipe: Callable[[], None]
) -> None:
    calls = calls_of(family)
    async with redis_py(socket_path, protocol=protocol, decode_responses=True) as client:
        expected = await outcomes(calls, client)
    wipe()
    async with atlas(socket_path, protocol=protocol, decode_responses=True, key_prefix=PREFIX) as client:
        actual = await outcomes(calls, client)
    wrong = [
        f"{call}: expected {theirs!r}, got {ours!r}"
        for call, theirs, ours in zip(calls, expected, actual, strict=True)
        if not _agree(call, theirs, ours)
    ]
    assert not wrong, "\n".join(wrong)
    with redis.Redis(unix_socket_path=socket_path) as outside:
        assert all(key.startswith(PREFIX.encode()) for key in outside.scan_iter())
