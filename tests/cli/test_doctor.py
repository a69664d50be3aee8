"""`gravito doctor`: what it finds, what it advises, and that it shows no secret."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis as redis_py
from typer.testing import CliRunner

from gravito.atlas import Settings
from gravito.atlas.embedded import Engine
from gravito.atlas.manager import ConnectionManager
from gravito.cli import _checks, app, doctor
from gravito.cli._checks import Facts

PASSWORD = "s3cr3t-of-the-test"


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(doctor, "DB", ConnectionManager())


@pytest.fixture
def engine() -> Iterator[Engine]:
    with Engine(
        directives={"requirepass": PASSWORD, "maxmemory": "50mb", "maxmemory-policy": "allkeys-lru"}
    ) as it:
        yield it


def run(*arguments: str, **environment: str) -> tuple[int, str]:
    result = CliRunner(env={"COLUMNS": "200", **environment}).invoke(app, ["doctor", *arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


def examined(*arguments: str, **environment: str) -> tuple[int, dict[str, Any]]:
    code, output = run(*arguments, "--json", **environment)
    return code, json.loads(output)


class TestConfiguration:
    def test_nothing_configured_is_the_embedded_engine(self) -> None:
        code, output = run()
        assert code == 0, output
        assert "nothing configured: the embedded engine" in output
        assert "embedded, private, keeps nothing" in output
        assert "nothing is wrong" in output

    def test_says_where_it_was_found(self, engine: Engine, tmp_path: Path) -> None:
        (tmp_path / ".env").write_text(f"REDIS_PASSWORD={PASSWORD}\n")
        code, report = examined(REDIS_URL=f"unix://:{PASSWORD}@{engine.path}")
        assert code == 0
        assert report["origin"] == "REDIS_URL in the environment"
        states = {source["source"]: source["state"] for source in report["sources"]}
        assert states["REDIS_URL"] == "set"
        assert states[str(tmp_path / ".env")] == "there, with REDIS_PASSWORD"
        assert PASSWORD not in json.dumps(report)

    def test_an_unusable_configuration_is_a_problem(self) -> None:
        code, report = examined(REDIS_HOST="localhost", REDIS_PORT="99999")
        assert code == 1
        assert "port is 99999" in report["findings"][0]["what"]

    def test_production_with_nothing_configured(self) -> None:
        code, output = run(GRAVITO_ENV="production")
        assert code == 1
        assert "set REDIS_URL" in output

    def test_a_name_that_is_not_there(self) -> None:
        code, output = run("cache")
        assert code == 1
        assert "no connection is called 'cache'" in output


class TestServer:
    def test_reports_the_server(self, engine: Engine, server_name: str) -> None:
        code, report = examined("--url", f"unix://:{PASSWORD}@{engine.path}")
        assert code == 0
        assert report["ok"] is True
        server = report["server"]
        assert server["version"].startswith(f"{server_name[:-1]} {server_name[-1]}")
        assert (server["RESP"], server["role"], server["persistence"]) == ("3", "master", "none")
        assert "policy allkeys-lru" in server["memory"]
        trips = report["round_trip_ms"]
        assert 0 < trips["p50"] <= trips["p90"] <= trips["p99"]
        advice = [finding["what"] for finding in report["findings"]]
        assert any("removes keys by itself (allkeys-lru)" in what for what in advice)
        assert any("a restart loses all data" in what for what in advice)
        assert any("--url holds a password" in what for what in advice)

    def test_resp2(self, engine: Engine) -> None:
        _, report = examined("--url", f"unix://:{PASSWORD}@{engine.path}?protocol=2")
        assert report["server"]["RESP"] == "2"

    def test_a_password_in_the_configuration_is_no_advice(
        self, engine: Engine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("REDIS_URL", f"unix://:{PASSWORD}@{engine.path}")
        _, report = examined()
        assert not any("--url" in finding["what"] for finding in report["findings"])

    def test_a_wrong_password(self, engine: Engine) -> None:
        code, output = run("--url", f"unix://:wrong-secret@{engine.path}")
        assert code == 1
        assert "refused the credentials" in output
        assert "REDIS_PASSWORD" in output
        assert "wrong-secret" not in output

    def test_nobody_listens(self, tmp_path: Path) -> None:
        code, output = run("--url", f"unix://{tmp_path}/nobody.sock")
        assert code == 1
        assert "embedded://" in output

    def test_a_user_that_may_hardly_do_anything(self, engine: Engine) -> None:
        with redis_py.Redis(unix_socket_path=engine.path, password=PASSWORD) as admin:
            admin.acl_setuser("poor", enabled=True, passwords=["+poor"], commands=["+ping"])
        code, report = examined("--url", f"unix://poor:poor@{engine.path}")
        assert code == 0, report
        assert report["server"]["version"] == "redis unknown"


class TestDiagnosis:
    far = Settings(host="cache.example.org")

    def what(self, settings: Settings, **facts: Any) -> list[tuple[str, str]]:
        return [(found.level, found.what) for found in _checks.diagnose(settings, Facts(**facts))]

    def test_open_to_all(self) -> None:
        ((level, what),) = self.what(self.far, open_to_all=True)
        assert level == "problem"
        assert "no password" in what

    @pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
    def test_open_on_this_machine_alone(self, host: str) -> None:
        assert self.what(Settings(host=host), open_to_all=True) == []

    def test_old(self) -> None:
        ((level, what),) = self.what(self.far, info={"redis_version": "5.0.7"})
        assert level == "problem"
        assert "5.0.7" in what

    def test_a_replica(self) -> None:
        ((level, what),) = self.what(self.far, info={"role": "slave"})
        assert (level, "refuses writes" in what) == ("problem", True)

    def test_slow(self) -> None:
        ((level, what),) = self.what(self.far, round_trips=[0.1] * 50)
        assert (level, "100 ms" in what) == ("advice", True)

    def test_a_failed_write_to_disk(self) -> None:
        ((level, _),) = self.what(self.far, info={"rdb_last_bgsave_status": "err"})
        assert level == "problem"

    def test_percentiles(self) -> None:
        assert _checks.percentiles([1.0]) == {"p50": 1.0, "p90": 1.0, "p99": 1.0}
        assert _checks.percentiles([float(n) for n in range(101)]) == {"p50": 50.0, "p90": 90.0, "p99": 99.0}
