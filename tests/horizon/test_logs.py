"""What a job says in the log."""

from __future__ import annotations

import logging

import pytest

from gravito.atlas import Client
from gravito.horizon import Horizon
from gravito.horizon._logs import escaped
from gravito.horizon.worker import Worker, WorkerOptions


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain \u6587\u5b57\u3000\u00a0\tand spaces", "plain \u6587\u5b57\u3000\u00a0\tand spaces"),
        ("\x1b[31m\x9b2J\x00\x7f", r"\x1b[31m\x9b2J\x00\x7f"),
        ("a\r\nb\u2028c\u202ed\ud800", r"a\r\nb\u2028c\u202ed\ud800"),
    ],
)
def test_what_does_not_print_is_shown_in_the_notation_of_python(text: str, shown: str) -> None:
    assert escaped(text) == shown


async def test_the_end_of_a_job_is_one_line_for_whatever_handler(
    redis: Client, caplog: pytest.LogCaptureFixture
) -> None:
    async with Horizon(redis) as horizon:

        @horizon.job(retries=0)
        async def fail() -> None:
            raise LookupError("no\x1b[31m\n2030-01-01 INFO all is well")

        await fail.push()
        with caplog.at_level(logging.ERROR, "gravito.horizon"):
            await Worker(horizon, WorkerOptions(burst=True)).run()
    (said,) = (record.getMessage() for record in caplog.records)
    assert said.endswith(r"is dead: LookupError: no\x1b[31m\n2030-01-01 INFO all is well")
