"""redis-py and ours agree on the older servers too, and what a server lacks is in the catalogue by name."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import redis as redis_py_package
from tests.compat.agreement import Failure, differences, outcomes
from tests.compat.clients import atlas, redis_py
from tests.compat.recorder import Call, Family, calls_of
from tests.compat.test_parity import FAMILIES
from tests.servers.catalogue import SERVERS, SINCE, lacks

from gravito.atlas.embedded import Engine
from gravito.testing import empty

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")

NO_SERVERS = re.compile(r"NO\.SUCH\.COMMAND|SENTINEL")  # of the table's own; of sentinels alone
UNKNOWN = re.compile(r"unknown command|unknown subcommand", re.I)


@pytest.fixture(params=[name for name in SERVERS if name != "valkey9"])  # tests/compat is about that one
def server_name(request: pytest.FixtureRequest) -> str:
    """Each older server."""
    name: str = request.param
    return name


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.__name__)
@pytest.mark.parametrize("protocol", [None, 2, 3], ids=["default", "resp2", "resp3"])
async def test_replies_agree(
    family: Family, protocol: int | None, server_name: str, engines: Callable[[str], Engine]
) -> None:
    path = engines(server_name).ensure()
    calls = calls_of(family)
    wipe(path)
    async with redis_py(path, protocol=protocol, decode_responses=True) as client:
        expected = await outcomes(calls, client)
    wipe(path)
    async with atlas(path, protocol=protocol, decode_responses=True) as client:
        actual = await outcomes(calls, client)
    assert not (wrong := differences(calls, expected, actual)), "\n".join(wrong)
    assert unexplained(server_name, calls, actual) == []


def unexplained(server: str, calls: list[Call], results: list[Any]) -> list[str]:
    """Commands that the server does not know although the catalogue does not say so."""
    old = [feature for feature in SINCE if lacks(server, feature)]
    return [
        f"{call}: {result.error}"
        for call, result in zip(calls, results, strict=True)
        if isinstance(result, Failure)
        and UNKNOWN.search(str(result.error))
        and not NO_SERVERS.search(str(result.error))
        and not any(_names(feature, str(call), str(result.error)) for feature in old)
    ]


def _names(feature: str, call: str, error: str) -> bool:
    words = feature.lower().split()
    said = (call + " " + error).lower().replace("_", " ").replace("-", " ")
    return all(word.replace("_", " ").replace("-", " ") in said for word in words)


def wipe(path: str) -> None:
    """Bring the server back to its first state."""
    empty(path)
    with redis_py_package.Redis(unix_socket_path=path) as client:
        client.config_set("maxmemory-samples", 5)
        client.config_set("slowlog-log-slower-than", 10_000)
        client.slowlog_reset()
        client.config_resetstat()
        client.acl_log_reset()
