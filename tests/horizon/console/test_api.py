"""The JSON API against its own description, the actions, the figures, and what Prometheus reads."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.applications import Starlette
from starlette.routing import Mount
from tests.horizon.console.browsing import SAME, Browser
from tests.horizon.console.conftest import PLANTED, World

from gravito.atlas import Client
from gravito.horizon import Horizon, Worker, WorkerOptions
from gravito.horizon._figures import Figures
from gravito.horizon._rows import Filter
from gravito.horizon.console._actions import ACTIONS
from gravito.horizon.console._api import ENDPOINTS, _encode
from gravito.horizon.console._fields import FILTER
from gravito.horizon.console._server import server_of
from gravito.horizon.repository import Repository

Make = Callable[..., Browser]


class Schema:
    """Checks values against the schemas of a description: as much of JSON Schema as the description uses."""

    def __init__(self, description: Any) -> None:
        self._all = description["components"]["schemas"]

    def check(self, value: Any, schema: Any, where: str = "") -> None:
        """Fail where a value is not what the schema says."""
        if "$ref" in schema:
            return self.check(value, self._all[schema["$ref"].rpartition("/")[2]], where)
        if "anyOf" in schema:
            assert any(self.fits(value, one) for one in schema["anyOf"]), (where, value)
            return None
        known = {
            "type",
            "title",
            "description",
            "properties",
            "required",
            "items",
            "prefixItems",
            "minItems",
            "maxItems",
        }
        known |= {"enum", "default", "additionalProperties", "propertyNames", "format", "$ref"}
        assert set(schema) <= known, schema
        if "enum" in schema:
            assert value in schema["enum"], (where, value)
        kinds = {
            "object": dict,
            "array": list,
            "string": str,
            "integer": int,
            "number": (int, float),
            "boolean": bool,
        }
        kind = schema.get("type")
        if kind == "null":
            assert value is None, where
        elif kind is not None:
            assert isinstance(value, kinds[kind]), (where, kind, value)
            assert kind == "boolean" or not isinstance(value, bool), where
        self._parts(value, schema, where)
        return None

    def _parts(self, value: Any, schema: Any, where: str) -> None:
        if isinstance(value, dict):
            properties = schema.get("properties", {})
            assert set(schema.get("required", [])) <= set(value), where
            if properties:
                assert set(value) <= set(properties), (where, set(value) - set(properties))
            for name, one in value.items():
                rest = schema.get("additionalProperties")
                self.check(
                    one, properties.get(name, rest if isinstance(rest, dict) else {}), f"{where}.{name}"
                )
        if isinstance(value, list):
            places = schema.get("prefixItems")
            for index, one in enumerate(value):
                items = places[index] if places else schema.get("items") or {}
                self.check(one, items, f"{where}[{index}]")

    def fits(self, value: Any, schema: Any) -> bool:
        """Whether a value is what the schema says."""
        try:
            self.check(value, schema)
        except AssertionError:
            return False
        return True


async def description(browser: Browser) -> Any:
    """The API's own."""
    return (await browser.get("/api/openapi.json")).json()


async def test_every_answer_is_what_the_description_says(browse: Make, world: World) -> None:
    browser = browse()
    described = await description(browser)
    schema = Schema(described)
    reads = {path for path, methods in described["paths"].items() if "get" in methods}
    assert reads == {one.path for one in ENDPOINTS} | {"/metrics", "/healthz"}
    for path in sorted(reads - {"/metrics"}):
        where = world.path(path.replace("batches/{id}", "batches/{batch}"))
        answer = await browser.get(where)
        assert answer.status_code == 200, (path, answer.text)
        content = described["paths"][path]["get"]["responses"]["200"]["content"]["application/json"]
        schema.check(answer.json(), content["schema"], path)
        for parameter in described["paths"][path]["get"].get("parameters", []):
            if parameter["in"] == "path":
                assert "{" + parameter["name"] + "}" in path
    assert {f"/api/actions/{name}" for name in ACTIONS} == {
        path for path, methods in described["paths"].items() if "post" in methods
    }


async def test_the_description_says_what_actions_and_parameters_take(browse: Make) -> None:
    described = await description(browse())

    def form(name: str) -> Any:
        post = described["paths"][f"/api/actions/{name}"]["post"]
        assert set(post["responses"]) == {"200", "400", "401", "403", "409", "413", "415", "429", "503"}
        assert [one["name"] for one in post["parameters"]] == ["x-gravito"]
        return post["requestBody"]["content"]["application/x-www-form-urlencoded"]["schema"]

    act, every = form("jobs.act"), form("jobs.all")
    assert set(act["properties"]) == set(act["required"]) == {"do", "job"}
    assert act["properties"]["job"]["type"] == "array"
    assert set(act["properties"]["do"]["enum"]) == {"retry", "discard", "cancel", "run_now", "delete"}
    assert set(every["properties"]) == {"do", "state", "queue", *Filter.__struct_fields__}
    assert every["required"] == ["do", "state"]
    assert all(form(name)["properties"] for name in ACTIONS)
    reads = described["paths"]["/api/jobs"]["get"]
    bounds = {
        one["name"]: one["schema"] for one in reads["parameters"] if one["schema"].get("type") == "integer"
    }
    assert (bounds["limit"]["minimum"], bounds["limit"]["maximum"]) == (1, 1000)
    assert (bounds["offset"]["minimum"], bounds["offset"]["maximum"]) == (0, 10_000_000)
    assert "404" not in reads["responses"]
    assert "404" in described["paths"]["/api/jobs/{queue}/{id}"]["get"]["responses"]


async def test_the_description_says_where_the_console_is_mounted(horizon: Horizon) -> None:
    console = horizon.console()
    site = Starlette(routes=[Mount("/a/horizon", console), Mount("/", console)])
    for root, url in (("/a/horizon", "/a/horizon"), ("", "/")):
        async with Browser(site, root) as browser:
            assert (await description(browser))["servers"] == [{"url": url}]


def test_the_check_of_the_description_can_fail() -> None:
    types = {
        "components": {
            "schemas": {"A": {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}}
        }
    }
    reference = {"$ref": "#/components/schemas/A"}
    schema = Schema(types)
    assert schema.fits({"a": 1}, reference)
    for wrong in ({}, {"a": "1"}, {"a": 1, "b": 1}, [], None, {"a": True}):
        assert not schema.fits(wrong, reference)


@pytest.mark.parametrize("state", ["ready", "delayed", "running", "parked", "done", "dead"])
async def test_jobs_of_every_state_are_described(browse: Make, world: World, state: str) -> None:
    browser = browse()
    described = await description(browser)
    answer = (await browser.get("/api/jobs", params={"state": state})).json()
    assert answer["jobs"], state
    Schema(described).check(answer, {"$ref": "#/components/schemas/JobPage"})
    one = answer["jobs"][0]
    detail = (await browser.get(f"/api/jobs/{one['queue']}/{one['id']}")).json()
    Schema(described).check(detail, {"$ref": "#/components/schemas/JobDetail"})
    assert detail["id"] == one["id"]


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/api/jobs?state=x", 400),
        ("/api/jobs?queue=a%20b", 400),
        ("/api/jobs?since=yesterday", 400),
        ("/api/jobs?mark=x&name=y", 400),
        ("/api/metrics?window=1y", 400),
        ("/api/queues/none", 404),
        ("/api/queues/none/limits", 404),
        ("/api/jobs/default/none", 404),
        ("/api/batches/none", 404),
        ("/api/jobs?nmae=mail", 400),
        ("/api/jobs?id=x", 400),
        ("/api/jobs?limit=abc", 400),
        ("/api/jobs?limit=-5", 400),
        ("/api/jobs?limit=0", 400),
        ("/api/jobs?limit=1001", 400),
        ("/api/jobs?limit=1e2", 400),
        ("/api/jobs?offset=x", 400),
        ("/api/jobs?offset=-1", 400),
        (f"/api/jobs?offset={'9' * 5000}", 400),
        ("/api/jobs?outcome=good", 400),
        ("/api/jobs?name=a&name=b", 400),
        ("/api/chains?limit=101", 400),
        ("/api/batches?ofset=1", 400),
        ("/api/workers?limit=", 200),
        ("/api/queues?queue=default", 400),
        ("/api/dead?queu=mail", 400),
        ("/api/metrics?windw=7d", 400),
        ("/api/cache?prefx=a", 400),
        ("/api/jobs?state=&queue=&limit=", 200),
    ],
)
async def test_what_cannot_be_answered_is_said(browse: Make, path: str, status: int) -> None:
    answer = await browse().get(path)
    assert answer.status_code == status
    assert status == 200 or list(answer.json()) == ["error"]


async def test_a_parameter_that_nobody_reads_is_named_with_those_that_are_read(browse: Make) -> None:
    told = (await browse().get("/api/dead?queu=mail")).json()["error"]
    assert told == "'queu' is unknown here; allowed: queue"
    assert "/api/jobs/{queue}/{id}" in (await browse().get("/api/jobs?id=x")).json()["error"]
    assert "1 to 1000" in (await browse().get("/api/jobs?limit=abc")).json()["error"]
    assert "1h, 24h, 7d" in (await browse().get("/api/metrics?window=1y")).json()["error"]


def test_a_search_takes_what_a_filter_has() -> None:
    assert [one.name for one in FILTER] == list(Filter.__struct_fields__)


async def test_what_json_has_no_form_for_is_shown_as_text(horizon: Horizon) -> None:
    @horizon.job
    async def odd(value: Any) -> Any:
        return {(1, 2): b"\xff", None: {3}}

    handle = await odd.push({1.5: {"a": b"x"}})
    await Worker(horizon, WorkerOptions(burst=True)).run()
    detail = await Repository(horizon).job(handle.id)
    assert detail is not None
    assert detail.has_result
    assert msgspec.json.decode(_encode(detail))["id"] == handle.id


async def test_actions_for_programs(browse: Make, horizon: Horizon) -> None:
    @horizon.job(retries=0)
    async def fail() -> None:
        raise LookupError

    handles = await horizon.push_many(fail.make() for _ in range(3))
    await Worker(horizon, WorkerOptions(burst=True)).run()
    browser = browse()
    headers = {**SAME, "x-csrf-token": await browser.csrf()}

    async def act(name: str, **fields: Any) -> Any:
        answer = await browser.web.post(f"/api/actions/{name}", data=fields, headers=headers)
        return answer.status_code, answer.json()

    status, told = await act("jobs.all", do="retry", state="dead")
    assert (status, told["error"][:14]) == (409, "Retry 3 jobs? ")
    assert (await horizon.broker("default").sizes()).dead == 3
    assert await act("jobs.act", do="retry", job=f"default/{handles[0].id}") == (
        200,
        {"text": "1 job is back in their queue.", "done": True},
    )
    status, told = await act("jobs.all", do="discard", state="dead", sure="yes")
    assert (status, told["text"]) == (200, "2 jobs are discarded.")
    assert (await act("jobs.all", do="retry", state="ready"))[0] == 409
    assert (await act("jobs.act", do="explode", job="default/x"))[0] == 409
    assert (await act("nothing"))[0] == 404
    assert (await act("queue.purge", queue="default", part="running"))[0] == 409


@pytest.mark.parametrize(
    ("address", "fields", "word"),
    [
        ("jobs.all", {"id": "x"}, "id"),
        ("jobs.all", {"nmae": "mail"}, "nmae"),
        ("jobs.all", {"tags": "vip"}, "tags"),
        ("jobs.all", {"job": "default/x"}, "job"),
        ("jobs.all", {"name": ["mail", "bill"]}, "name"),
        ("jobs.all?name=mail", {}, "name"),
        ("jobs.all?sure=yes", {}, "sure"),
    ],
)
async def test_a_condition_that_nobody_reads_changes_no_job(
    browse: Make, horizon: Horizon, address: str, fields: dict[str, Any], word: str
) -> None:
    @horizon.job
    async def bill() -> None: ...

    await horizon.push_many(bill.make() for _ in range(3))
    browser = browse()
    data = {"do": "delete", "state": "ready", "sure": "yes", "csrf": await browser.csrf(), **fields}
    for root, kind in (("/api", "application/json"), ("", "text/html")):
        answer = await browser.web.post(f"{root}/actions/{address}", data=data, headers=SAME)
        assert answer.status_code == 400
        assert answer.headers["content-type"].startswith(kind)
        assert word in answer.text
        assert "do, state, queue, name, tag" in answer.text or isinstance(fields.get(word), list)
    assert sum((await horizon.broker("default").sizes()).ready) == 3


@pytest.mark.parametrize("name", ACTIONS)
async def test_every_action_refuses_fields_and_parameters_that_it_does_not_know(
    browse: Make, name: str
) -> None:
    browser = browse()
    headers = {**SAME, "x-csrf-token": await browser.csrf()}
    for address, data in ((name, {"zap": "1"}), (f"{name}?zap=1", {})):
        answer = await browser.web.post(f"/api/actions/{address}", data=data, headers=headers)
        assert (answer.status_code, "'zap' is" in answer.json()["error"]) == (400, True)


async def test_figures_are_exact_whoever_watches(browse: Make, horizon: Horizon) -> None:
    """3,000 jobs here, to be quick; the same with 100,000 says 100,000 (`bench/` has it as a row of its own)."""
    jobs, bad = 3000, 30

    @horizon.job(retries=0)
    async def work(number: int) -> None:
        if number < bad:
            raise LookupError

    watching = [browse(), browse()]  # two consoles
    await horizon.push_many(work.make(number) for number in range(jobs))
    await watching[0].get("/")
    await Worker(horizon, WorkerOptions(burst=True)).run()
    for browser in watching:
        totals = (await browser.get("/api/summary")).json()["totals"]
        assert (totals["pushed"], totals["ok"], totals["dead"]) == (jobs, jobs - bad, bad)
        hour = (await browser.get("/api/metrics")).json()["total"]
        assert (hour["ok"], hour["dead"], sum(hour["run"].values())) == (jobs - bad, bad, jobs)
        page = (await browser.get("/")).text
        assert f'data-key="total.ok">{jobs - bad:,}<' in page
        assert f'data-key="total.pushed">{jobs:,}<' in page


async def test_figures_come_with_what_the_pages_make_of_them(browse: Make, world: World) -> None:
    browser = browse()
    metrics = (await browser.get("/api/metrics")).json()
    bounds, total = metrics["buckets_ms"], metrics["total"]
    assert bounds == sorted(bounds)
    assert {int(bucket) for bucket in total["run"]} <= set(range(len(bounds) + 1))
    figures = Figures(run={int(at): number for at, number in total["run"].items()})
    found = total["run_percentiles"]
    assert found == {
        name: figures.run_ms(share) for name, share in zip(found, (0.5, 0.95, 0.99), strict=True)
    }
    assert found["p50"] is not None
    assert set(metrics["jobs"]["fail"]["wait_percentiles"]) == {"p50", "p95", "p99"}
    assert metrics["points"][0]["figures"]["run_percentiles"] == dict.fromkeys(found)
    for row in (await browser.get("/api/queues")).json():
        assert {"ok", "dead", "run_percentiles"} <= set(row["last_minute"])
        assert set((await browser.get(f"/api/queues/{row['name']}")).json()) == set(row)


async def test_what_prometheus_reads(browse: Make, world: World) -> None:
    answer = await browse().get("/metrics", headers={"accept": "text/plain"})
    assert answer.headers["content-type"].startswith("text/plain")
    found = {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }
    assert found["gravito_horizon_jobs", ("queue", "default"), ("state", "dead")] == 1
    assert found["gravito_horizon_jobs", ("queue", "held"), ("state", "running")] == 1
    assert found["gravito_horizon_events_total", ("event", "dead"), ("queue", "default")] == 1
    assert found[("gravito_horizon_workers",)] == 1
    assert found["gravito_horizon_run_seconds", ("quantile", "0.95"), ("queue", "default")] > 0
    assert PLANTED not in answer.text
    answer = await browse().get("/metrics", headers={"accept": "application/openmetrics-text"})
    assert answer.text.endswith("# EOF\n")


# -- the server's health -------------------------------------------------------------------------------------


async def test_the_server_says_how_it_is(browse: Make, redis: Client) -> None:
    server = (await browse().get("/api/summary")).json()["server"]
    assert re.match(r"(Redis|Valkey) \d", server["name"])
    assert server["memory"] > 0
    assert server["policy"] == "noeviction"


@pytest.mark.parametrize(
    ("said", "word", "bad"),
    [
        ({"maxmemory_policy": "allkeys-lru"}, "noeviction", True),
        ({"maxmemory": 100, "used_memory": 85}, "maxmemory", False),
        ({"maxmemory": 100, "used_memory": 99}, "maxmemory", True),
        ({"aof_enabled": 0}, "appendonly", False),
        ({"aof_enabled": 1, "aof_last_write_status": "err"}, "disk", True),
        ({"rdb_last_bgsave_status": "err"}, "disk", True),
        ({"role": "slave", "master_link_status": "down"}, "primary", True),
        ({"loading": 1}, "Wait", True),
        ({"rejected_connections": 3}, "maxclients", False),
    ],
)
def test_a_server_that_endangers_jobs_gets_a_warning_with_its_remedy(
    said: dict[str, Any], word: str, bad: bool
) -> None:
    (warning,) = server_of(said).warnings
    assert word in warning.remedy
    assert warning.bad is bad


def test_a_server_that_is_well_gets_none() -> None:
    server = server_of(
        {"aof_enabled": 1, "maxmemory": 1000, "used_memory": 10, "maxmemory_policy": "noeviction"}
    )
    assert server.warnings == ()
    assert server.full == 0.01


def test_of_a_cluster_the_first_node_is_shown() -> None:
    assert server_of({"a:1": {"redis_version": "7.4"}, "b:1": {"redis_version": "7.2"}}).name == "Redis 7.4"
