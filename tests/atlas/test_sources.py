"""Where the configuration is found: each source against the next one below it."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gravito.atlas._sources import Configuration, load_configuration, read_connection, read_mapping
from gravito.atlas.config import Settings
from gravito.errors import ConfigurationError

EXPLICIT = {"connections": {"redis": {"host": "explicit"}}}
FILE = 'DATABASE = {"default": "main", "connections": {"main": {"host": "file"}}}\n'
SECRET = "hunter2"


class Place:
    """A working directory and an environment, to be filled step by step."""

    def __init__(self, cwd: Path) -> None:
        self.cwd = cwd
        self.environ: dict[str, str] = {}

    def file(self, text: str, path: str = "config/database.py") -> Path:
        target = self.cwd / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
        return target

    def dotenv(self, text: str) -> None:
        (self.cwd / ".env").write_text(text)

    def load(self, explicit: Any = None, **options: Any) -> Configuration:
        return load_configuration(explicit, self.cwd, self.environ, **options)

    def host(self) -> str:
        found = self.load()
        return found.connections[found.default].host

    def refused(self, explicit: Any = None) -> ConfigurationError:
        with pytest.raises(ConfigurationError) as caught:
            self.load(explicit)
        return caught.value


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


class TestPrecedence:
    def test_the_program_goes_before_the_file(self, place: Place) -> None:
        place.file(FILE)
        found = place.load(EXPLICIT)
        assert found.connections["redis"].host == "explicit"
        assert found.origin == "DB.configure"

    def test_the_program_s_mapping_is_the_only_thing_looked_at(self, place: Place) -> None:
        place.file("raise RuntimeError")
        place.environ["GRAVITO_CONFIG"] = "missing.py"
        assert place.load(EXPLICIT).default == "redis"

    def test_the_named_file_goes_before_the_usual_one(self, place: Place) -> None:
        place.file(FILE)
        named = place.file(FILE.replace('"file"', '"named"'), "elsewhere/settings.py")
        place.environ["GRAVITO_CONFIG"] = "elsewhere/settings.py"
        assert place.host() == "named"
        assert place.load().origin == str(named)

    def test_the_file_goes_before_redis_url(self, place: Place) -> None:
        path = place.file(FILE)
        place.environ["REDIS_URL"] = "redis://url"
        assert place.host() == "file"
        assert place.load().origin == str(path)

    def test_redis_url_goes_before_redis_host(self, place: Place) -> None:
        place.environ |= {"REDIS_URL": "redis://url/2", "REDIS_HOST": "host", "REDIS_DB": "5"}
        assert place.host() == "url"
        assert place.load().connections["redis"].db == 2
        assert place.load().origin == "REDIS_URL in the environment"

    def test_redis_host_goes_before_everything_in_dotenv(self, place: Place) -> None:
        place.environ["REDIS_HOST"] = "host"
        place.dotenv("REDIS_URL=redis://dotenv-url\nREDIS_HOST=dotenv-host\n")
        assert place.host() == "host"

    def test_dotenv_fills_the_gaps_of_the_environment(self, place: Place) -> None:
        place.environ |= {"REDIS_HOST": "host", "REDIS_PASSWORD": ""}
        place.dotenv(f"REDIS_HOST=dotenv-host\nREDIS_PASSWORD={SECRET}\nREDIS_PORT=7000\n")
        found = place.load()
        assert found.connections["redis"] == Settings(host="host", port=7000, password=SECRET)
        assert (
            found.origin
            == f"REDIS_HOST in the environment, REDIS_PORT, REDIS_PASSWORD in {place.cwd / '.env'}"
        )

    def test_in_dotenv_too_the_url_goes_first(self, place: Place) -> None:
        place.dotenv("REDIS_HOST=dotenv-host\nREDIS_URL='redis://dotenv-url'\n")
        assert place.host() == "dotenv-url"
        assert place.load().origin == f"REDIS_URL in {place.cwd / '.env'}"

    def test_dotenv_goes_before_nothing(self, place: Place) -> None:
        place.dotenv("# a comment\nexport REDIS_HOST=dotenv-host\nREDIS_DB=4\n")
        assert place.load().connections["redis"] == Settings(host="dotenv-host", db=4)
        assert place.load().origin == f"REDIS_HOST, REDIS_DB in {place.cwd / '.env'}"

    def test_added_connections_go_before_the_embedded_engine(
        self, place: Place, caplog: pytest.LogCaptureFixture
    ) -> None:
        place.environ["GRAVITO_ENV"] = "production"
        with caplog.at_level(logging.INFO, "gravito.atlas"):
            found = place.load(added={"cache": Settings(name="cache"), "redis": Settings()})
        assert found.default == "redis"
        assert place.load(added={"cache": Settings(name="cache")}).default == "cache"
        assert not caplog.records

    def test_added_connections_do_not_hide_what_is_configured(self, place: Place) -> None:
        place.environ["REDIS_HOST"] = "host"
        assert place.load(added={"cache": Settings(name="cache")}).default == "redis"


class TestNothing:
    def test_is_the_embedded_engine_and_one_line_says_so(
        self, place: Place, caplog: pytest.LogCaptureFixture
    ) -> None:
        with caplog.at_level(logging.INFO, "gravito.atlas"):
            found = place.load()
        assert found.connections["redis"].driver == "embedded"
        (record,) = caplog.records
        assert (record.name, record.levelno) == ("gravito.atlas", logging.INFO)
        for word in ("embedded", "REDIS_URL", "config/database.py", "DB.configure"):
            assert word in record.getMessage()

    @pytest.mark.parametrize("where", ["environ", "dotenv"])
    def test_is_an_error_in_production(self, place: Place, where: str) -> None:
        if where == "environ":
            place.environ["GRAVITO_ENV"] = "production"
        else:
            place.dotenv("GRAVITO_ENV=production\n")
        assert "REDIS_URL" in str(place.refused())

    def test_the_environment_decides_what_production_is(self, place: Place) -> None:
        place.dotenv("GRAVITO_ENV=production\n")
        place.environ["GRAVITO_ENV"] = "development"
        assert place.load().connections["redis"].driver == "embedded"

    def test_empty_variables_and_service_links_count_as_nothing(self, place: Place) -> None:
        place.environ |= {"REDIS_URL": "", "REDIS_HOST": "", "REDIS_PORT": "tcp://10.0.0.1:6379"}
        assert place.load().connections["redis"].driver == "embedded"


class TestVariables:
    def test_all_five(self, place: Place) -> None:
        place.environ |= {
            "REDIS_HOST": "h",
            "REDIS_PORT": "7000",
            "REDIS_USERNAME": "u",
            "REDIS_PASSWORD": "p@/#",
            "REDIS_DB": "2",
        }
        expected = Settings(host="h", port=7000, username="u", password="p@/#", db=2)
        assert place.load().connections["redis"] == expected

    @pytest.mark.parametrize(
        ("variable", "value", "field"),
        [
            ("REDIS_PORT", "many", "port"),
            ("REDIS_PORT", "70000", "port"),
            ("REDIS_DB", "-1", "db"),
            ("REDIS_URL", "localhost", "url"),
        ],
    )
    def test_bad_ones_are_refused_with_their_origin(
        self, place: Place, variable: str, value: str, field: str
    ) -> None:
        place.environ[variable] = value
        error = place.refused()
        assert error.field == field
        assert f"{variable} in the environment" in str(error)

    def test_a_bad_dotenv_line_is_refused_with_its_origin(self, place: Place) -> None:
        place.dotenv("REDIS_PORT=many\n")
        assert str(place.cwd / ".env") in str(place.refused())

    def test_a_dotenv_that_is_not_text_is_refused(self, place: Place) -> None:
        (place.cwd / ".env").write_bytes(b"REDIS_HOST=\xff\xfe\n")
        assert "UTF-8" in str(place.refused())

    def test_no_error_shows_the_password(self, place: Place) -> None:
        place.environ |= {"REDIS_URL": f"redis://:{SECRET}@h:0"}
        assert SECRET not in str(place.refused())
        place.environ = {"REDIS_PASSWORD": SECRET, "REDIS_PORT": "x"}
        assert SECRET not in str(place.refused())

    def test_dotenv_is_not_put_into_the_environment(self, place: Place) -> None:
        place.dotenv("REDIS_HOST=h\n")
        place.load()
        assert place.environ == {}


class TestFile:
    @pytest.mark.parametrize(
        ("text", "told"),
        [
            ("DATABASE = {", "SyntaxError"),
            ("import no_such_module_anywhere", "no_such_module_anywhere"),
            ("import os\nos.environ['NO_SUCH_VARIABLE_ANYWHERE']", "NO_SUCH_VARIABLE_ANYWHERE"),
            ("raise SystemExit(3)", "SystemExit"),
            ("", "has no DATABASE"),
            ("DATABASE = []", "list"),
            ("DATABASE = {'connections': {'x': {'port': 0}}}", "port"),
        ],
    )
    def test_what_is_wrong_is_told_with_the_file_s_name(self, place: Place, text: str, told: str) -> None:
        path = place.file(text)
        error = place.refused()
        assert str(path) in str(error)
        assert told in str(error)

    def test_the_original_error_stays_attached(self, place: Place) -> None:
        place.file("1 / 0")
        assert isinstance(place.refused().__cause__, ZeroDivisionError)

    def test_a_named_file_must_be_there(self, place: Place) -> None:
        place.environ["GRAVITO_CONFIG"] = "missing.py"
        error = place.refused()
        assert error.field == "GRAVITO_CONFIG"
        assert "missing.py" in str(error)

    def test_a_named_file_must_be_python(self, place: Place) -> None:
        place.file("{}", "config.json")
        place.environ["GRAVITO_CONFIG"] = "config.json"
        assert ".py" in str(place.refused())

    def test_dotenv_may_name_the_file(self, place: Place) -> None:
        place.file(FILE, "other.py")
        place.dotenv("GRAVITO_CONFIG=other.py\n")
        assert place.host() == "file"


class TestMapping:
    @pytest.mark.parametrize(
        ("mapping", "field"),
        [
            ([], None),
            ({}, "connections"),
            ({"connections": {}}, "connections"),
            ({"connections": ["redis"]}, "connections"),
            ({"conections": {"redis": {}}}, "conections"),
            ({"default": "x", "connections": {"redis": {}}}, "default"),
            ({"default": 3, "connections": {"redis": {}}}, "default"),
            ({"connections": {"a": {}, "b": {}}}, "default"),
            ({"connections": {"": {}}}, "name"),
            ({"connections": {"a": None}}, "a"),
            ({"connections": {"a": {"host": 3}}}, "host"),
            ({"connections": {"a": "nonsense"}}, "url"),
            ({"connections": {"a": ""}}, "url"),
        ],
    )
    def test_bad_ones_are_refused(self, mapping: Any, field: str | None) -> None:
        with pytest.raises(ConfigurationError) as caught:
            read_mapping(mapping, "the test")
        assert caught.value.field == field
        assert "(from the test)" in str(caught.value)

    def test_an_unknown_default_gets_the_names_and_a_suggestion(self) -> None:
        with pytest.raises(
            ConfigurationError, match=r"default is 'cach'; allowed: cache, jobs; did you mean 'cache'\?"
        ):
            read_mapping({"default": "cach", "connections": {"cache": {}, "jobs": {}}}, "here")

    def test_the_default_may_be_left_out_where_it_is_plain(self) -> None:
        assert read_mapping({"connections": {"only": {}}}, "").default == "only"
        assert read_mapping({"connections": {"cache": {}, "redis": {}}}, "").default == "redis"

    def test_connections_come_as_mapping_url_or_settings(self) -> None:
        found = read_mapping(
            {"connections": {"redis": {"url": "redis://a"}, "b": "redis://b", "c": Settings(host="c")}}, ""
        )
        assert [each.host for each in found.connections.values()] == ["a", "b", "c"]
        assert [each.name for each in found.connections.values()] == ["redis", "b", "c"]
        assert read_connection("d", Settings(name="x")).name == "d"


def test_dotenv_is_imported_only_where_there_is_such_a_file(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from gravito.atlas._sources import load_configuration as load;"
        "load(None, Path.cwd(), {}); print('dotenv' in sys.modules)"
    )

    def run() -> str:
        return subprocess.run(
            [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True
        ).stdout.strip()

    assert run() == "False"
    (tmp_path / ".env").write_text("REDIS_HOST=h\n")
    assert run() == "True"
