"""What holds for every script of a queue, whatever it does."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

import pytest

from gravito import horizon
from gravito.atlas import Client
from gravito.horizon._broker import Broker
from gravito.horizon._counters import BUCKETS, bucket, fields, parse
from gravito.horizon._keys import PARTS, Keys
from gravito.horizon._messages import Done, Envelope
from gravito.horizon._pack import raw

FOLDER = Path(horizon.__file__).parent / "scripts"
FILES = sorted(FOLDER.glob("*.lua"))
COMMON = (FOLDER / "common.lua").read_text("utf-8")


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_a_script_says_first_what_it_takes_and_gives(file: Path) -> None:
    opening = re.match(r"(?:--.*\n)+", file.read_text("utf-8"))
    assert opening is not None
    words = ("KEYS", "ARGV") if file.name == "common.lua" else ("KEYS", "ARGV", "Result")
    assert [word for word in words if word not in opening[0]] == []


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_a_script_names_no_key_and_asks_no_clock_but_the_servers(file: Path) -> None:
    code = re.sub(r"--.*", "", file.read_text("utf-8"))
    assert "horizon:" not in code
    assert not re.search(r"\bos\.", code)
    keyed = re.findall(r"call\('([A-Z]+)'(?:, ([^,)]+))?", code)
    keyless = {"TIME", "PUBLISH", "INFO"}
    literals = [(name, key) for name, key in keyed if name not in keyless and key.startswith(("'", '"'))]
    assert literals == []


def test_the_common_part_names_the_keys_in_their_order() -> None:
    block = COMMON[COMMON.index("local JOBS") : COMMON.index("local call")]
    places: dict[str, int] = {}
    for names, values in re.findall(r"local ([A-Z, ]+) = (.+)", block):
        numbers = [int(number) for number in re.findall(r"KEYS\[(\d+)\]", values)]
        places.update(zip(names.split(", "), numbers, strict=True))
    counters = places.pop("COUNTERS")
    assert counters == len(PARTS) + 1
    expected = {part.upper(): at for at, part in enumerate(PARTS, 1) if not part.startswith("ready")}
    assert places == expected
    assert PARTS[1:5] == ("ready:0", "ready:1", "ready:2", "ready:3")


def test_all_keys_of_a_queue_are_in_one_slot() -> None:
    keys = Keys("emails", "jobs")
    names = [*keys.all, keys.minute(5), *keys.counts]
    assert all(name.startswith("jobs:{emails}:") for name in names)
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("size", [0, 1, 31, 32, 255, 256, 65_535, 65_536, 200_000])
async def test_bytes_of_every_size_arrive_as_they_are(broker: Broker, size: int) -> None:
    body = (bytes(range(256)) * (size // 256 + 1))[:size]
    assert len(raw(body)) >= size
    await broker.push(Envelope("x" * 100, body))
    [job] = (await broker.step("w", [], 1)).claimed
    assert (job.id, job.body) == ("x" * 100, body)
    await broker.step("w", [Done(job.id, job.fence, "ok", body)], 0)
    assert (await broker.look(job.id)).record == (body or None)


async def test_scripts_that_the_server_forgot_are_sent_again(broker: Broker, redis: Client) -> None:
    await broker.push(Envelope("a", b""))
    await redis.script_flush()
    assert [job.id for job in (await broker.step("w", [], 1)).claimed] == ["a"]


def test_buckets_grow_evenly_and_hold_what_they_say() -> None:
    assert BUCKETS[0] == 1.0
    assert BUCKETS[-1] == 10_000_000.0
    assert all(1.5 <= after / before <= 1.67 for before, after in pairwise(BUCKETS))
    assert [bucket(ms) for ms in (0, 1, 1.1, 1.6, 10, 10.1, 1e9)] == [0, 0, 1, 1, 5, 6, len(BUCKETS)]


def test_fields_of_counters_can_be_read_back() -> None:
    done = Done("a", 1, "retry", name="mail|odd name", run_ms=12.0, wait_ms=0.5)
    run, wait = fields(done)
    assert parse(run) == ("r", "retry", bucket(12.0), "mail|odd name")
    assert parse(wait) == ("w", "", 0, "mail|odd name")
    assert fields(Done("a", 1, "release", name="mail")) == ()
