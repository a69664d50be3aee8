"""Bytes that hypothesis thinks up: a wire answers its callers or ends with ProtocolError, and nothing else happens."""

from __future__ import annotations

import asyncio
from itertools import pairwise

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.faults.rows.nonsense import GOOD, _ask, _wire

from gravito import errors

_LINES = st.builds(
    lambda mark, rest: mark + rest + b"\r\n",
    st.sampled_from([bytes([each]) for each in b"+-:$*%~=(,#_>|!;."]),
    st.one_of(st.integers(-2, 20).map(lambda number: b"%d" % number), st.binary(max_size=6)),
)
_BYTES = st.lists(st.one_of(_LINES, st.sampled_from(GOOD), st.binary(max_size=8)), max_size=12).map(b"".join)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=_BYTES, cuts=st.lists(st.integers(0, 200), max_size=4), callers=st.integers(0, 5))
def test_any_bytes(data: bytes, cuts: list[int], callers: int) -> None:
    async def read() -> None:
        wire, transport = _wire()
        entries = _ask(wire, callers)
        bounds = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
        for start, end in pairwise(bounds):
            if wire.ended is None:
                wire.data_received(data[start:end])
        if wire.ended is None:
            wire.close()
        else:
            assert type(wire.ended) is errors.ProtocolError
        assert transport.aborted
        for entry in entries:
            assert entry.future.done()
            entry.future.exception()

    asyncio.run(read())
