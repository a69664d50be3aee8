"""Settings: what is taken, what is refused, and that no secret is shown."""

from __future__ import annotations

import pickle
import re
import ssl
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.asyncio.connection import parse_url as redis_parse_url
from rich.pretty import pretty_repr

from gravito.atlas.config import TLS, Limits, Retry, Settings, Timeouts
from gravito.errors import ConfigurationError

SECRET = "hunter2"


def refused(build: Any, *args: Any, **kwargs: Any) -> ConfigurationError:
    with pytest.raises(ConfigurationError) as caught:
        build(*args, **kwargs)
    return caught.value


class TestDefaults:
    def test_a_bare_connection_is_a_local_server(self) -> None:
        settings = Settings()
        assert (settings.host, settings.port, settings.db) == ("127.0.0.1", 6379, 0)
        assert settings.protocol is None
        assert settings.decode_responses is True
        assert settings.tls is None
        assert settings.address == "127.0.0.1:6379"

    def test_objects_are_frozen_and_equal_by_value(self) -> None:
        assert Settings(db=1) == Settings(db=1)
        assert hash(Settings(db=1)) == hash(Settings(db=1))
        with pytest.raises(AttributeError):
            Settings().port = 1  # type: ignore[misc]  # that is what is tested

    def test_settings_survive_pickle(self) -> None:
        settings = Settings(password=SECRET, tls=TLS(ca_file="ca.pem"))
        assert pickle.loads(pickle.dumps(settings)) == settings


class TestUrls:
    @pytest.mark.parametrize(
        ("url", "expected"),
        [
            ("redis://", {}),
            ("redis://cache.example", {"host": "cache.example"}),
            ("redis://h:6380/2", {"host": "h", "port": 6380, "db": 2}),
            ("redis://h/", {"host": "h"}),
            ("redis://h/2?db=3", {"host": "h", "db": 3}),
            ("redis://:pw@h", {"host": "h", "password": "pw"}),
            ("redis://:@h", {"host": "h"}),
            ("redis://us%40er:p%2Fw%23%3F%40@h", {"host": "h", "username": "us@er", "password": "p/w#?@"}),
            ("redis://user:p@ss@h", {"host": "h", "username": "user", "password": "p@ss"}),
            ("redis://[::1]:6380", {"host": "::1", "port": 6380}),
            ("rediss://h", {"host": "h", "tls": TLS()}),
            ("unix:///run/x.sock", {"path": "/run/x.sock"}),
            ("unix://user@/run/x.sock?db=1", {"path": "/run/x.sock", "username": "user", "db": 1}),
            ("unix://:pw@/run/a%20b.sock", {"path": "/run/a b.sock", "password": "pw"}),
            ("embedded://", {"driver": "embedded"}),
            ("embedded:///some/dir", {"driver": "embedded", "directory": str(Path("/some/dir").resolve())}),
            ("embedded://./data", {"driver": "embedded", "directory": str(Path("data").resolve())}),
            ("embedded://./a%20b/c/", {"driver": "embedded", "directory": str(Path("a b/c").resolve())}),
            ("embedded://../data", {"driver": "embedded", "directory": str(Path("../data").resolve())}),
            ("embedded://~/data", {"driver": "embedded", "directory": str(Path("~/data").expanduser())}),
            ("redis://h?password=a%2520b", {"host": "h", "password": "a%20b"}),
            (
                "redis://h?decode_responses=no&protocol=3",
                {"host": "h", "decode_responses": False, "protocol": 3},
            ),
            (
                "redis://h?client_name=web&health_check=0",
                {"host": "h", "client_name": "web", "health_check": 0.0},
            ),
        ],
    )
    def test_parts_become_settings(self, url: str, expected: dict[str, Any]) -> None:
        assert Settings.from_url(url) == Settings(**expected)

    @pytest.mark.parametrize(
        "url",
        [
            "redis://h:6380/2",
            "redis://u:p%40w@h/2?db=5",
            "redis://[::1]:1/0",
            "unix://user:pw@/a/b.sock?db=1",
            "redis://h?db=1&db=2",
            "redis://HOST.Example",
            "redis://:p%2Fq@h?username=someone",
        ],
    )
    def test_agrees_with_redis_py(self, url: str) -> None:
        theirs = dict(redis_parse_url(url))
        theirs.pop("connection_class", None)
        ours = Settings.from_url(url)
        assert {key: getattr(ours, key) for key in theirs} == theirs

    @given(st.text(min_size=1), st.text(min_size=1))
    def test_any_credentials_come_through(self, user: str, password: str) -> None:
        try:
            url = f"redis://{quote(user, safe='')}:{quote(password, safe='')}@h"
        except UnicodeEncodeError:  # lone surrogates have no place in a URL
            return
        settings = Settings.from_url(url)
        assert (settings.username, settings.password) == (user, password)

    def test_the_url_wins_over_options_as_in_redis_py(self) -> None:
        settings = Settings.from_url(
            "redis://h/1?client_name=url", db=7, client_name="option", name="x", port=1
        )
        assert (settings.db, settings.client_name, settings.name, settings.port) == (1, "url", "x", 1)

    def test_options_stand_beside_the_url(self) -> None:
        settings = Settings.from_url("redis://h", decode_responses=False, timeouts=Timeouts(command=1))
        assert settings.decode_responses is False
        assert settings.timeouts.command == 1

    def test_a_tcp_url_replaces_the_socket_of_a_mapping(self) -> None:
        assert Settings.from_mapping("c", {"path": "/x.sock", "url": "redis://h"}).address == "h:6379"

    @pytest.mark.parametrize(
        ("url", "field"),
        [
            ("", "url"),
            ("localhost:6379", "url"),
            ("redis:host", "url"),
            ("http://h", "url"),
            ("redis ://h", "url"),
            (" redis://h", "url"),
            ("redis://h\n", "url"),
            ("redis://[::1", "url"),
            ("redis://:6379", "url"),
            ("redis://h:0", "port"),
            ("redis://h:65536", "port"),
            ("redis://h:-1", "port"),
            ("redis://h:abc", "port"),
            ("redis://h/abc", "db"),
            ("redis://h/-1", "db"),
            ("redis://h/1/2", "db"),
            ("redis://h/\u0663", "db"),
            ("redis://h?db=-1", "db"),
            ("redis://h?db", "url"),
            ("redis://h?url=redis://x", "url"),
            ("redis://h?nonsense=1", "nonsense"),
            ("redis://h?timeouts.comand=1", "timeouts.comand"),
            ("redis://h?protocol=4", "protocol"),
            ("redis://h?decode_responses=maybe", "decode_responses"),
            ("redis://h#x", "url"),
            ("unix://", "url"),
            ("unix:///", "url"),
            ("unix://run/x.sock", "url"),
            ("embedded://some/dir", "url"),
            ("embedded:///", "url"),
            ("embedded://.", "url"),
            ("embedded://./", "url"),
            ("embedded://..", "url"),
            ("embedded://~", "url"),
            ("embedded://.:6379/data", "url"),
        ],
    )
    def test_bad_urls_are_refused(self, url: str, field: str) -> None:
        error = refused(Settings.from_url, url, name="cache")
        assert error.field == field
        assert "'cache'" in str(error)
        assert "allowed" in str(error)

    def test_a_url_that_is_not_text_is_refused(self) -> None:
        assert "bytes" in str(refused(Settings.from_url, b"redis://h"))

    def test_the_port_is_shown(self) -> None:
        error = refused(Settings.from_url, "redis://h:70000")
        assert error.value == 70000
        assert "70000" in str(error)

    def test_a_scheme_with_a_typo_gets_a_suggestion(self) -> None:
        assert "did you mean 'redis'?" in str(refused(Settings.from_url, "reddis://h"))

    @pytest.mark.parametrize(
        "url",
        [
            f"redis://:{SECRET}@h:port",
            f"redis://:{SECRET}/x@h",
            f"redis://:{SECRET}?x@h",
            f"redis://:{SECRET}?x=1@h",
            f"redis://:{SECRET}#x@h",
            f"redis://:a/{SECRET}@h",
            f"redis://:a?{SECRET}@h",
            f"redis://:a?{SECRET}=1@h",
            f"redis://:a#{SECRET}@h",
            f"redis://user:{SECRET}",
            f"redis://:{SECRET}@h/abc",
            f"redis://:{SECRET}@[h",
            f"http://:{SECRET}@h",
            f"redis:{SECRET}@h",
            f"unix://:{SECRET}@host/path",
            f"unix://:{SECRET}@",
            f"embedded://:{SECRET}@/x",
            f"redis://h?pasword={SECRET}",
            f"redis://:{SECRET}@h?db=x",
            f" redis://:{SECRET}@h",
        ],
    )
    def test_no_error_shows_a_secret(self, url: str) -> None:
        error = refused(Settings.from_url, url)
        assert SECRET not in f"{error} {error!r} {error.value!r} {error.allowed!r} {error.field}"
        assert error.__cause__ is None
        assert (
            error.__suppress_context__ or error.__context__ is None or SECRET not in repr(error.__context__)
        )


class TestMappings:
    def test_text_is_cast(self) -> None:
        settings = Settings.from_mapping(
            "c", {"port": "6380", "db": "1", "decode_responses": "off", "protocol": "", "health_check": "2.5"}
        )
        assert settings == Settings(
            name="c", port=6380, db=1, decode_responses=False, protocol=None, health_check=2.5
        )

    def test_names_of_redis_py_are_understood(self) -> None:
        settings = Settings.from_mapping(
            "c",
            {
                "socket_timeout": 2,
                "socket_connect_timeout": "3",
                "max_connections": 5,
                "health_check_interval": 30,
                "ssl": True,
                "ssl_ca_certs": Path("/ca.pem"),
                "ssl_certfile": "c.pem",
                "ssl_keyfile": "k.pem",
                "ssl_password": SECRET,
                "ssl_check_hostname": False,
                "ssl_cert_reqs": "none",
            },
        )
        assert settings.timeouts == Timeouts(command=2, connect=3)
        assert settings.limits == Limits(leased_wires=5)
        assert settings.health_check == 30
        assert settings.tls == TLS(
            ca_file="/ca.pem",
            cert_file="c.pem",
            key_file="k.pem",
            key_password=SECRET,
            check_hostname=False,
            verify=False,
        )
        assert Settings.from_mapping("c", {"unix_socket_path": "/x.sock"}).path == "/x.sock"

    @pytest.mark.parametrize(
        ("value", "verify"),
        [("none", False), ("required", True), (ssl.CERT_NONE, False), (ssl.CERT_REQUIRED, True)],
    )
    def test_ssl_cert_reqs(self, value: Any, verify: bool) -> None:
        tls = Settings.from_mapping("c", {"ssl_cert_reqs": value}).tls
        assert tls is not None
        assert tls.verify is verify

    @pytest.mark.parametrize(
        "options",
        [
            {"timeouts": {"command": 2, "lease": None}},
            {"timeouts.command": 2, "timeouts.lease": None},
            {"timeouts": Timeouts(command=2, lease=None)},
            {"timeouts": Timeouts(lease=None), "socket_timeout": 2},
            {"timeouts": {"lease": "none"}, "socket_timeout": "2"},
        ],
    )
    def test_groups_come_nested_dotted_or_as_objects(self, options: dict[str, Any]) -> None:
        assert Settings.from_mapping("c", options).timeouts == Timeouts(command=2, lease=None)

    @pytest.mark.parametrize(
        ("options", "expected"),
        [
            ({"tls": True}, TLS()),
            ({"ssl": "true"}, TLS()),
            ({"tls": {}}, TLS()),
            ({"tls": {"verify": "no"}}, TLS(verify=False)),
            ({"tls": TLS(verify=False), "ssl_ca_certs": "x"}, TLS(verify=False, ca_file="x")),
            ({"ssl": False, "ssl_ca_certs": "x"}, None),
            ({"tls": None}, None),
        ],
    )
    def test_tls_is_on_when_it_is_asked_for(self, options: dict[str, Any], expected: TLS | None) -> None:
        assert Settings.from_mapping("c", options).tls == expected

    @pytest.mark.parametrize(
        ("options", "field"),
        [
            ({"driver": "mysql"}, "driver"),
            ({"driver": None}, "driver"),
            ({"host": ""}, "host"),
            ({"host": None}, "host"),
            ({"port": 0}, "port"),
            ({"port": 65536}, "port"),
            ({"port": "http"}, "port"),
            ({"port": True}, "port"),
            ({"port": 6379.0}, "port"),
            ({"db": -1}, "db"),
            ({"db": "one"}, "db"),
            ({"protocol": 1}, "protocol"),
            ({"protocol": True}, "protocol"),
            ({"decode_responses": 1}, "decode_responses"),
            ({"client_name": "two words"}, "client_name"),
            ({"client_name": "line\n"}, "client_name"),
            ({"health_check": -1}, "health_check"),
            ({"path": ""}, None),
            ({"timeouts": {"connect": None}}, "timeouts.connect"),
            ({"timeouts": {"command": 0}}, "timeouts.command"),
            ({"timeouts": {"command": float("nan")}}, "timeouts.command"),
            ({"timeouts": {"command": float("inf")}}, "timeouts.command"),
            ({"timeouts": {"command": True}}, "timeouts.command"),
            ({"timeouts": {"total": 1}}, "timeouts.total"),
            ({"timeouts": 5}, "timeouts"),
            ({"timeouts": None}, "timeouts"),
            ({"timeouts": Retry()}, "timeouts"),
            ({"socket_timeout": "soon"}, "timeouts.command"),
            ({"limits": {"in_flight": 0}}, "limits.in_flight"),
            ({"limits": {"in_flight": 1.5}}, "limits.in_flight"),
            ({"max_connections": -1}, "limits.leased_wires"),
            ({"retry": {"attempts": -1}}, "retry.attempts"),
            ({"retry": {"base": 2, "cap": 1}}, "retry.base"),
            ({"tls": 1}, "tls"),
            ({"tls": "perhaps"}, "tls"),
            ({"tls": {"key_file": "k"}}, "tls.cert_file"),
            ({"ssl_cert_reqs": "sometimes"}, "ssl_cert_reqs"),
            ({"tls": True, "path": "/x.sock"}, "tls"),
            ({"driver": "embedded", "path": "/x.sock"}, "path"),
            ({"driver": "embedded", "tls": True}, "tls"),
            ({"directory": "/data"}, "directory"),
            ({"prot": 1}, "prot"),
            ({"name": "other"}, "name"),
            ({3: 1}, "3"),
            ({"socket_timeout": 1, "timeouts": {"command": 2}}, "timeouts.command"),
            ({"url": "redis://h:0"}, "port"),
        ],
    )
    def test_bad_options_are_refused_by_name(self, options: dict[Any, Any], field: str | None) -> None:
        if field is None:  # an unset variable counts as None where that is allowed
            assert Settings.from_mapping("cache", options) == Settings(name="cache")
            return
        error = refused(Settings.from_mapping, "cache", options)
        assert error.field == field
        assert str(error).startswith("connection 'cache': ")
        assert str(error).count("'cache'") == 1

    def test_the_value_and_what_is_allowed_are_told(self) -> None:
        error = refused(Settings.from_mapping, "cache", {"port": 70000})
        assert str(error) == "connection 'cache': port is 70000; allowed: a whole number from 1 to 65535"
        assert error.value == 70000
        error = refused(Settings.from_mapping, "cache", {"driver": "embeded"})
        assert "did you mean 'embedded'?" in str(error)
        assert list(error.allowed) == ["redis", "embedded", "sentinel", "cluster"]

    @pytest.mark.parametrize(
        ("word", "meant"), [("pasword", "password"), ("hots", "host"), ("timeout", "timeouts")]
    )
    def test_unknown_options_get_a_suggestion_and_keep_their_value_to_themselves(
        self, word: str, meant: str
    ) -> None:
        error = refused(Settings.from_mapping, "cache", {word: SECRET})
        assert f"did you mean {meant!r}?" in str(error)
        assert SECRET not in f"{error!r} {error.value!r}"

    @pytest.mark.parametrize("options", [None, 5, "redis://h", [("host", "h")]])
    def test_what_is_not_a_mapping_is_refused(self, options: Any) -> None:
        assert "mapping" in str(refused(Settings.from_mapping, "cache", options))

    @pytest.mark.parametrize("name", ["", None, 3])
    def test_names_must_be_text(self, name: Any) -> None:
        assert refused(Settings.from_mapping, name, {}).field == "name"
        assert refused(Settings, name=name).field == "name"

    def test_empty_credentials_count_as_none(self) -> None:
        settings = Settings.from_mapping("c", {"username": "", "password": ""})
        assert settings.username is None
        assert settings.password is None
        assert Settings(password="").password is None

    def test_an_empty_url_counts_as_none(self) -> None:
        assert Settings.from_mapping("c", {"url": "", "db": 1}).db == 1

    def test_a_relative_folder_is_taken_from_the_working_directory(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        settings = Settings.from_mapping("c", {"driver": "embedded", "directory": "data/../data"})
        assert settings.directory == str((tmp_path / "data").resolve())


class TestObjects:
    """Built by hand, the objects check just as much."""

    @pytest.mark.parametrize(
        "build",
        [
            lambda: Settings(port="6379"),  # type: ignore[arg-type]  # casting is for mappings and URLs
            lambda: Settings(port=-1),
            lambda: Settings(protocol=4),
            lambda: Settings(timeouts=None),  # type: ignore[arg-type]
            lambda: Timeouts(connect=-1),
            lambda: Limits(push_buffer=0),
            lambda: Retry(attempts=1.0),  # type: ignore[arg-type]
            lambda: TLS(verify="no"),  # type: ignore[arg-type]
            lambda: msgspec.structs.replace(Settings(), port=0),
        ],
    )
    def test_bad_values_are_refused(self, build: Any) -> None:
        assert refused(build).allowed

    @pytest.mark.parametrize(
        ("build", "field"),
        [
            (lambda: Settings(password=SECRET.encode()), "password"),  # type: ignore[arg-type]
            (lambda: TLS(key_password=[SECRET]), "tls.key_password"),  # type: ignore[arg-type]
        ],
    )
    def test_a_bad_secret_is_told_by_its_type(self, build: Any, field: str) -> None:
        error = refused(build)
        assert error.field == field
        assert error.value is None
        assert SECRET not in str(error)


class TestShowing:
    SETTINGS = Settings(
        name="main", username="u", password=SECRET, db=3, tls=TLS(cert_file="c", key_password=SECRET)
    )

    @pytest.mark.parametrize("show", [repr, str, pretty_repr, lambda settings: f"{settings}"])
    def test_secrets_are_masked(self, show: Any) -> None:
        shown = show(self.SETTINGS)
        assert SECRET not in shown
        assert "***" in shown
        assert "main" in shown

    def test_only_what_differs_is_shown(self) -> None:
        assert repr(Settings(db=1)) == "Settings(name='redis', driver='redis', db=1)"
        assert repr(Timeouts()) == "Timeouts()"

    @pytest.mark.parametrize(
        ("settings", "address", "url"),
        [
            (SETTINGS, "127.0.0.1:6379", "rediss://u:***@127.0.0.1:6379/3"),
            (Settings(password=SECRET), "127.0.0.1:6379", "redis://:***@127.0.0.1:6379/0"),
            (Settings(username="a/b"), "127.0.0.1:6379", "redis://a%2Fb@127.0.0.1:6379/0"),
            (Settings(host="::1"), "[::1]:6379", "redis://[::1]:6379/0"),
            (Settings(path="/a b", db=2, password=SECRET), "/a b", "unix://:***@/a%20b?db=2"),
            (Settings(driver="embedded"), "embedded", "embedded://"),
            (Settings(driver="embedded", directory="/d"), "embedded:/d", "embedded:///d"),
        ],
    )
    def test_address_and_url(self, settings: Settings, address: str, url: str) -> None:
        assert settings.address == address
        assert settings.url == url


class TestSentinels:
    def test_a_url_with_everything(self) -> None:
        settings = Settings.from_url(
            "redis+sentinel://app:p%40ss@h1:1,h2/my%2Fmaster/2?sentinel_password=theirs&sentinel_tls=yes&read_from=replica"
        )
        assert (settings.driver, settings.nodes, settings.service) == (
            "sentinel",
            ("h1:1", "h2:26379"),
            "my/master",
        )
        assert (settings.username, settings.password, settings.db) == ("app", "p@ss", 2)
        assert (settings.sentinel_password, settings.sentinel_tls, settings.tls) == ("theirs", TLS(), None)
        assert settings.read_from == "replica"
        assert settings.url == "redis+sentinel://app:***@h1:1,h2:26379/my%2Fmaster/2"
        assert "theirs" not in repr(settings)
        assert "p@ss" not in repr(settings)

    def test_tls_to_the_servers_alone(self) -> None:
        settings = Settings.from_url("rediss+sentinel://h1/mymaster")
        assert (settings.tls, settings.sentinel_tls) == (TLS(), None)

    def test_a_mapping(self) -> None:
        mapping = {"driver": "sentinel", "nodes": ["h1"], "service": "m", "sentinel_tls": {"verify": "no"}}
        settings = Settings.from_mapping("cache", mapping)
        assert settings.address == "m@h1:26379"
        assert settings.sentinel_tls == TLS(verify=False)

    @pytest.mark.parametrize(
        ("url", "said"),
        [
            ("redis+sentinel://h1,h2", "the service is missing"),
            ("redis+sentinel:///mymaster", "the hosts are not a list"),
            ("redis+sentinel://h1:x/mymaster", "the hosts are not a list"),
            ("redis+sentinel://user:secret/with@h1/mymaster", "an '@' behind the host"),
            ("redis+sentinel://h1/mymaster/x", "db in the url's path is 'x'"),
            ("redis+sentinel://h1/mymaster?read_from=any", "read_from is 'any'"),
        ],
    )
    def test_urls_that_are_refused(self, url: str, said: str) -> None:
        with pytest.raises(ConfigurationError, match=re.escape(said)) as caught:
            Settings.from_url(url)
        assert "secret" not in str(caught.value)

    @pytest.mark.parametrize(
        ("field", "value"), [("service", "m"), ("sentinel_password", "x"), ("sentinel_tls", TLS())]
    )
    def test_options_of_sentinels_on_one_server(self, field: str, value: Any) -> None:
        with pytest.raises(ConfigurationError, match=f"{field} is set"):
            Settings(**{field: value})


class TestAddressMaps:
    """Where nodes are reached that announce other addresses."""

    URL = "redis+cluster://h1,h2"

    @pytest.mark.parametrize(
        "given",
        [
            {"10.0.0.1:6379": "nat:7001", "[::1]:1": "[::2]:2"},
            (("10.0.0.1:6379", "nat:7001"), ("[::1]:1", "[::2]:2")),
            "10.0.0.1:6379=nat:7001, [::1]:1=[::2]:2",
        ],
    )
    def test_mappings_and_text_become_pairs(self, given: Any) -> None:
        settings = Settings.from_url(self.URL, address_map=given)
        assert settings.address_map == (("10.0.0.1:6379", "nat:7001"), ("[::1]:1", "[::2]:2"))
        assert settings == msgspec.structs.replace(settings, db=0)
        assert hash(settings) == hash(pickle.loads(pickle.dumps(settings)))

    def test_in_a_url_and_for_sentinels(self) -> None:
        url = "redis+sentinel://h1/mymaster?address_map=a:1=b:2"
        assert Settings.from_url(url).address_map == (("a:1", "b:2"),)

    def test_a_function_and_redis_py_s_name(self) -> None:
        def reached(address: tuple[str, int]) -> tuple[str, int]:
            return address

        assert Settings.from_url(self.URL, address_remap=reached).address_map is reached
        assert Settings.from_url(self.URL).address_map is None
        assert Settings.from_url(self.URL, address_map="").address_map is None

    @pytest.mark.parametrize(
        "given",
        [
            {"h": "h:1"},
            {"h:1": "h"},
            {"h:1": "h:0"},
            {"h:1": None},
            {1: 2},
            ["h:1", "h:2"],
            5,
            "h:1",
            "h:1=",
            "h:1=h:2,h:1=h:3",
            "h:1=h:99999",
        ],
    )
    def test_what_is_refused(self, given: Any) -> None:
        error = refused(Settings.from_url, self.URL, address_map=given)
        assert error.field == "address_map"
        assert "a mapping from host:port to host:port" in str(error)

    @pytest.mark.parametrize("url", ["redis://h", "embedded://", "unix:///x"])
    def test_one_server_has_none(self, url: str) -> None:
        error = refused(Settings.from_url, url, address_map={"a:1": "b:2"})
        assert "None unless the driver is" in str(error)
