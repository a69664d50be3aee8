"""Who may enter, which changes are taken, and what goes along with each answer."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import RedirectResponse
from tests.horizon.console.browsing import SAME, TOKEN, Browser

from gravito.errors import ConfigurationError
from gravito.horizon import Horizon
from gravito.horizon.console import Basic, Token, _auth
from gravito.horizon.console._security import _FORWARDED
from gravito.horizon.console._visit import Notice

Make = Callable[..., Browser]


async def paused(horizon: Horizon, queue: str = "default") -> bool:
    """Whether a queue is."""
    return (await horizon.broker(queue).sizes()).paused


# -- changes -------------------------------------------------------------------------------------------------


async def test_a_change_with_its_token_from_our_page_is_made(browse: Make, horizon: Horizon) -> None:
    answer = await browse().post("/actions/queue.pause", queue="default")
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    assert await paused(horizon)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"sec-fetch-site": "none"},
        {"sec-fetch-site": "cross-site", "origin": "http://localhost"},
        {"sec-fetch-site": "same-origin", "origin": "http://evil.example"},
        {"origin": "http://evil.example"},
        {"origin": "http://localhost.evil.example"},
        {"origin": "http://localhost:8000"},
        {"origin": "null"},
        {"origin": ""},
        {"origin": "http://[::1"},
        {"referer": "http://localhost/"},
    ],
    ids=str,
)
async def test_a_change_that_another_site_asks_for_is_refused(
    browse: Make, horizon: Horizon, headers: dict[str, str]
) -> None:
    answer = await browse().post("/actions/queue.pause", headers=headers, queue="default")
    assert answer.status_code == 403
    assert not await paused(horizon)


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://localhost"},
        {"origin": "http://localhost:80"},
        {**SAME, "origin": "http://localhost"},
    ],
    ids=str,
)
async def test_an_old_browser_says_its_origin(
    browse: Make, horizon: Horizon, headers: dict[str, str]
) -> None:
    answer = await browse().post("/actions/queue.pause", headers=headers, queue="default")
    assert answer.status_code == 303
    assert await paused(horizon)


@pytest.mark.parametrize("token", ["", "0" * 64, "wrong"])
async def test_a_change_without_its_token_is_refused(browse: Make, horizon: Horizon, token: str) -> None:
    browser = browse()
    answer = await browser.post("/actions/queue.pause", queue="default", csrf=token)
    assert answer.status_code == 403
    assert not await paused(horizon)


async def test_a_token_of_another_browser_is_refused(browse: Make, horizon: Horizon) -> None:
    theirs = await browse().csrf()
    answer = await browse().post("/actions/queue.pause", queue="default", csrf=theirs)
    assert answer.status_code == 403
    assert not await paused(horizon)


async def test_a_token_without_its_session_is_refused(browse: Make, horizon: Horizon) -> None:
    browser = browse()
    token = await browser.csrf()
    browser.web.cookies.clear()
    data = {"csrf": token, "queue": "default"}
    answer = await browser.web.post("/actions/queue.pause", data=data, headers=SAME)
    assert answer.status_code == 403
    assert not await paused(horizon)


async def test_a_token_in_a_header_does_too(browse: Make, horizon: Horizon) -> None:
    browser = browse()
    headers = {**SAME, "x-csrf-token": await browser.csrf()}
    await browser.web.post("/actions/queue.pause", data={"queue": "default"}, headers=headers)
    assert await paused(horizon)


@pytest.mark.parametrize(
    ("kind", "body", "status"),
    [
        ("application/json", b"{}", 415),
        ("multipart/form-data; boundary=x", b"--x--", 415),
        ("application/x-www-form-urlencoded", b"a=\xff", 400),
        ("application/x-www-form-urlencoded", b"&".join([b"a=1"] * 10_001), 400),
        ("application/x-www-form-urlencoded", b"a=" + b"1" * 1024 * 1024, 413),
        ("text/plain", b"csrf=x", 415),
    ],
    ids=["json", "multipart", "no text", "too many fields", "too long", "text"],
)
async def test_a_body_that_is_no_form_is_refused(browse: Make, kind: str, body: bytes, status: int) -> None:
    headers = {**SAME, "content-type": kind}
    answer = await browse().web.post("/actions/queue.pause", content=body, headers=headers)
    assert answer.status_code == status


@pytest.mark.parametrize(
    "back",
    [
        "http://evil.example/",
        "//evil.example",
        "/\\evil.example",
        "/\t/evil.example",
        "javascript:alert(1)",
        "queues",
        "",
    ],
)
async def test_nobody_is_sent_elsewhere(browse: Make, back: str) -> None:
    answer = await browse().post("/actions/queue.pause", queue="default", back=back)
    assert answer.headers["location"] == "/"


# -- who and where -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "localhost@evil.example",
        "",
        "[::1",
        "a b",
    ],
)
async def test_other_host_names_are_refused(browse: Make, host: str) -> None:
    answer = await browse().get("/", headers={"host": host})
    assert answer.status_code == 400
    assert "allowed_hosts" in answer.text
    assert "default" not in answer.text


async def test_two_host_headers_are_refused(browse: Make) -> None:
    browser = browse()
    request = browser.web.build_request("GET", "/")
    request.headers = type(request.headers)([("host", "localhost"), ("host", "localhost")])
    assert (await browser.web.send(request)).status_code == 400


@pytest.mark.parametrize(
    ("allowed", "host", "status"),
    [
        (("jobs.example.com",), "jobs.example.com", 200),
        (("jobs.example.com",), "JOBS.example.com:8443", 200),
        (("jobs.example.com",), "localhost", 400),
        (("*.example.com",), "a.b.example.com", 200),
        (("*.example.com",), "example.com", 400),
        (("*.example.com",), "evilexample.com", 400),
        (("*",), "anything.example", 200),
        (("::1",), "[::1]:8484", 200),
        (("[::1]",), "[::1]", 200),
        (("0:0:0:0:0:0:0:1",), "[::1]", 200),
        (("FE80::1",), "[fe80::1]", 200),
        (("JOBS.example.com",), "jobs.example.com", 200),
    ],
)
async def test_hosts_are_those_that_were_named(
    browse: Make, allowed: tuple[str, ...], host: str, status: int
) -> None:
    answer = await browse(allowed_hosts=allowed).get("/", headers={"host": host})
    assert answer.status_code == status


@pytest.mark.parametrize(
    ("address", "headers", "status"),
    [
        ("127.0.0.1", {}, 200),
        ("127.1.2.3", {}, 200),
        ("::1", {}, 200),
        ("10.0.0.5", {}, 403),
        ("fe80::1%eth0", {}, 403),
        ("testclient", {}, 403),
        ("127.0.0.1", {"x-forwarded-for": "127.0.0.1"}, 403),
        ("127.0.0.1", {"forwarded": "for=10.0.0.5"}, 403),
        *[("127.0.0.1", {name: "x"}, 403) for name in sorted(_FORWARDED)],
    ],
)
async def test_without_authentication_only_this_machine_is_answered(
    horizon: Horizon, address: str, headers: dict[str, str], status: int
) -> None:
    async with Browser(horizon.console(), client=(address, 5)) as browser:
        answer = await browser.get("/", headers=headers)
        assert answer.status_code == status
        if status != 200:
            assert "auth" in answer.text


def test_the_headers_of_common_proxies_are_known() -> None:
    assert {"x-forwarded-host", "x-forwarded-proto", "via"} < _FORWARDED
    assert {"cf-connecting-ip", "true-client-ip", "x-client-ip"} < _FORWARDED


async def test_a_login_lasts_for_its_browser_alone(browse: Make) -> None:
    browser = browse(auth=Token(TOKEN))
    answer = await browser.get("/queues?window=7d")
    assert answer.headers["location"] == "/login?next=%2Fqueues%3Fwindow%3D7d"
    assert "This is not the token" in (await browser.log_in("wrong")).text
    assert (await browser.get("/")).status_code == 303
    answer = await browser.log_in()
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    assert (await browser.get("/")).status_code == 200
    other = browse(auth=Token(TOKEN))  # its own session, with the cookie that proves the other one's login
    await other.get("/login")
    other.web.cookies.set("gravito_login", browser.web.cookies["gravito_login"], domain="localhost.local")
    assert (await other.get("/")).status_code == 303


async def test_a_login_holds_for_another_console_of_the_same_token(browse: Make, horizon: Horizon) -> None:
    browser = browse(auth=Token(TOKEN))
    await browser.log_in()
    for token, status in ((TOKEN, 200), (TOKEN + "x", 303)):
        async with Browser(horizon.console(auth=Token(token))) as other:
            other.web.cookies = browser.web.cookies
            assert (await other.get("/")).status_code == status


async def test_a_login_begins_a_session_of_its_own(browse: Make) -> None:
    browser = browse(auth=Token(TOKEN))
    await browser.get("/login")
    before = browser.web.cookies["gravito_session"]
    await browser.log_in()
    assert browser.web.cookies["gravito_session"] != before


async def test_a_login_ends(browse: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    browser = browse(auth=Token(TOKEN))
    await browser.log_in()
    now = _auth.time.time()
    late = SimpleNamespace(time=lambda: now + 12 * 3600 + 1)
    monkeypatch.setattr(
        _auth, "time", late
    )  # the browser, which would forget the cookie, keeps its own clock
    assert (await browser.get("/")).status_code == 303
    monkeypatch.undo()
    assert (await browser.get("/")).status_code == 200
    answer = await browser.post("/logout")
    assert (answer.status_code, answer.headers["location"]) == (303, "/login")
    assert (await browser.get("/")).status_code == 303


@pytest.mark.parametrize("value", ["", ".", "1.2", "-1.x", "9" * 30, "\N{SUPERSCRIPT TWO}.x", "0.0.0"])
def test_no_other_cookie_is_a_login(value: str) -> None:
    class Visit:
        session = "0" * 32

    assert not Token(TOKEN).signed(value, Visit())  # type: ignore[arg-type]


async def test_a_program_sends_the_token_and_needs_no_page(browse: Make, horizon: Horizon) -> None:
    browser = browse(auth=Token(TOKEN))
    headers = {"authorization": f"Bearer {TOKEN}"}
    assert (await browser.get("/api/queues", headers=headers)).json() == []
    data = {"queue": "default"}
    answer = await browser.web.post("/api/actions/queue.pause", data=data, headers=headers)
    assert answer.json() == {"text": "default is paused; running jobs go on.", "done": True}
    assert await paused(horizon)
    headers["origin"] = "http://evil.example"
    answer = await browser.web.post("/api/actions/queue.resume", data=data, headers=headers)
    assert answer.status_code == 403


async def test_name_and_password(browse: Make, horizon: Horizon) -> None:
    browser = browse(auth=Basic("ada", "l\N{LATIN SMALL LETTER O WITH DIAERESIS}ve:lace"))
    answer = await browser.get("/")
    assert (answer.status_code, answer.headers["www-authenticate"][:5]) == (401, "Basic")
    for wrong in ("ada:", "ada:x", ":", "bob:l\N{LATIN SMALL LETTER O WITH DIAERESIS}ve:lace", "nothing"):
        headers = {"authorization": "Basic " + base64.b64encode(wrong.encode()).decode()}
        assert (await browser.get("/", headers=headers)).status_code == 401
    assert (await browser.get("/", headers={"authorization": b"Basic \xff"})).status_code == 401
    good = base64.b64encode("ada:l\N{LATIN SMALL LETTER O WITH DIAERESIS}ve:lace".encode()).decode()
    browser.web.headers["authorization"] = f"Basic {good}"
    assert "ada" in (await browser.get("/")).text
    # a browser sends the password along with other sites' forms, too: it is no proof of who made the form
    data = {"queue": "default"}
    answer = await browser.web.post("/actions/queue.pause", data=data, headers=SAME)
    assert answer.status_code == 403
    assert not await paused(horizon)


ADA = "Basic " + base64.b64encode(b"ada:secret").decode()
PROGRAM = {"x-gravito": "1"}


@pytest.mark.parametrize(
    ("auth", "headers"),
    [
        (None, {}),
        (Basic("ada", "secret"), {"authorization": ADA}),
        (lambda request: request.headers.get("x-user"), {"x-user": "ada"}),
    ],
    ids=["local", "basic", "function"],
)
async def test_a_program_that_says_so_makes_changes(
    browse: Make, horizon: Horizon, auth: Any, headers: dict[str, str]
) -> None:
    browser = browse(auth=auth)
    answer = await browser.web.post(
        "/api/actions/queue.pause", data={"queue": "default"}, headers={**PROGRAM, **headers}
    )
    assert (answer.status_code, answer.json()["done"]) == (200, True)
    assert await paused(horizon)
    if headers:
        await horizon.broker("default").resume()
        answer = await browser.web.post(
            "/api/actions/queue.pause", data={"queue": "default"}, headers=PROGRAM
        )
        assert answer.status_code in (401, 403)
        assert not await paused(horizon)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"x-gravito": ""},
        {"x-gravito": "0"},
        {**PROGRAM, "cookie": "a=b"},
        {**PROGRAM, "cookie": ""},
        {**PROGRAM, "origin": "http://evil.example"},
        {**PROGRAM, "origin": "null"},
        {**PROGRAM, "origin": ""},
        {**PROGRAM, "origin": "http://localhost"},
        {**PROGRAM, "sec-fetch-site": "cross-site"},
        {**PROGRAM, "sec-fetch-site": "same-site"},
        {**PROGRAM, "sec-fetch-site": "none"},
        {**PROGRAM, **SAME},
    ],
    ids=str,
)
async def test_a_browser_does_not_pass_for_a_program(
    browse: Make, horizon: Horizon, headers: dict[str, str]
) -> None:
    for path in ("/api/actions/queue.pause", "/actions/queue.pause"):
        answer = await browse(auth=Basic("ada", "secret")).web.post(
            path, data={"queue": "default"}, headers={"authorization": ADA, **headers}
        )
        assert answer.status_code == 403
    assert not await paused(horizon)


async def test_no_script_of_another_site_is_told_that_it_may_say_so(browse: Make) -> None:
    headers = {
        "origin": "http://evil.example",
        "access-control-request-method": "POST",
        "access-control-request-headers": "x-gravito",
    }
    answer = await browse().web.request("OPTIONS", "/api/actions/queue.pause", headers=headers)
    assert answer.status_code == 405
    assert not any(name.startswith("access-control") for name in answer.headers)


async def test_an_application_s_own_function(browse: Make) -> None:
    async def known(request: Request) -> str | RedirectResponse | None:
        who = request.headers.get("x-user")
        return RedirectResponse("/sign-in", 302) if who == "guest" else who

    browser = browse(auth=known)
    assert (await browser.get("/")).status_code == 403
    assert (await browser.get("/", headers={"x-user": "guest"})).headers["location"] == "/sign-in"
    assert "ada" in (await browser.get("/", headers={"x-user": "ada"})).text


async def test_a_function_that_gives_no_name_lets_nobody_in(browse: Make) -> None:
    answer = await browse(auth=lambda request: True).get("/")
    assert answer.status_code >= 400
    assert "Overview" not in answer.text


async def test_whoever_tries_tokens_has_to_wait(browse: Make) -> None:
    auth = Token(TOKEN)
    browser = browse(auth=auth)
    for _ in range(10):
        assert (await browser.get("/api/queues", headers={"authorization": "Bearer no"})).status_code == 401
    right = {"authorization": f"Bearer {TOKEN}"}
    assert (await browser.get("/api/queues", headers=right)).status_code == 429
    assert (await browser.log_in()).status_code == 429
    auth.tries._clock = lambda: 1e12
    assert (await browser.get("/api/queues", headers=right)).status_code == 200


@pytest.mark.parametrize(
    ("one", "other", "alike"),
    [
        ("a", "a", True),
        ("a", "b", False),
        ("", "", True),
        ("a", "", False),
        ("\udcff", "\udcff", True),
        ("é", "e", False),
    ],
)
def test_secrets_are_compared_in_constant_time(
    monkeypatch: pytest.MonkeyPatch, one: str, other: str, alike: bool
) -> None:
    compared = []
    real = _auth.hmac.compare_digest
    monkeypatch.setattr(_auth.hmac, "compare_digest", lambda *pair: compared.append(pair) or real(*pair))
    assert _auth.same(one, other) is alike
    assert [len(side) for side in compared[0]] == [32, 32]  # of one length, whatever was given


def test_secrets_are_in_no_repr() -> None:
    assert TOKEN not in repr(Token(TOKEN))
    assert "secret" not in repr(Basic("ada", "secret"))


@pytest.mark.parametrize(
    "make",
    [
        lambda horizon: Token("short"),
        lambda horizon: Token(None),
        lambda horizon: Basic("", "x"),
        lambda horizon: Basic("a:b", "x"),
        lambda horizon: Basic("a", ""),
        lambda horizon: horizon.console(auth="token"),
        lambda horizon: horizon.console(allowed_hosts="localhost"),
        lambda horizon: horizon.console(allowed_hosts=[""]),
        lambda horizon: horizon.console(allowed_hosts=[]),
        lambda horizon: horizon.console(allowed_hosts=[None]),
    ],
)
def test_settings_that_would_not_protect_are_refused(horizon: Horizon, make: Any) -> None:
    with pytest.raises(ConfigurationError):
        make(horizon)


@pytest.mark.parametrize(
    "host",
    [
        "jobs.example.org:8443",
        "https://jobs.example.org",
        "jobs.example.org/horizon",
        "[::1]:8484",
        "*example.org",
        "a b",
        "b\N{LATIN SMALL LETTER U WITH DIAERESIS}cher.example",
    ],
)
def test_a_host_that_no_request_could_name_is_refused(horizon: Horizon, host: str) -> None:
    with pytest.raises(ConfigurationError, match="without scheme, port and path") as caught:
        horizon.console(allowed_hosts=["localhost", host])
    assert host in str(caught.value)
    assert caught.value.field == "allowed_hosts"


# -- answers -------------------------------------------------------------------------------------------------


async def test_cookies_are_for_this_console_alone(horizon: Horizon) -> None:
    console = horizon.console(auth=Token(TOKEN))
    async with Browser(console) as browser:
        for answer in (await browser.get("/login"), await browser.log_in()):
            for cookie in answer.headers.get_list("set-cookie"):
                assert re.search("; Path=/; HttpOnly; SameSite=Lax", cookie)
                assert "Secure" not in cookie
    async with Browser(console, base="https://localhost") as browser:
        await browser.get("/login")
        for cookie in (await browser.log_in()).headers.get_list("set-cookie"):
            assert cookie.startswith("__Secure-gravito_")
            assert "; Secure" in cookie
        assert (await browser.get("/")).status_code == 200


async def test_every_answer_has_the_headers(browse: Make) -> None:
    browser = browse()
    nonces = set()
    for path in ("/", "/nothing", "/healthz", "/api/queues", "/static/console.js", "/metrics"):
        answer = await browser.get(path)
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        nonces.add(policy)
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["referrer-policy"] == "same-origin"
        assert (
            "immutable" in answer.headers["cache-control"]
            if "static" in path
            else answer.headers["cache-control"] == "no-store"
        )
        assert "access-control-allow-origin" not in answer.headers
    assert len(nonces) == 6


async def test_a_notice_is_shown_once(browse: Make) -> None:
    browser = browse()
    await browser.act("queue.pause", queue="default")
    assert "default is paused" in (await browser.get("/")).text
    assert "default is paused" not in (await browser.get("/")).text


@pytest.mark.parametrize("value", ["", "x", "!!!", "e30", "bm90IGpzb24", "\N{SNOWMAN}"])
def test_a_notice_that_is_none_is_left_out(value: str) -> None:
    assert Notice.opened(value) is None


@pytest.mark.parametrize("text", ["x" * 4000, "\0" * 4000, "\N{CHART WITH UPWARDS TREND}" * 4000])
def test_a_long_notice_is_cut_to_what_a_cookie_holds(text: str) -> None:
    sealed = Notice(text, "bad").sealed()
    assert len(sealed) < 3500
    opened = Notice.opened(sealed)
    assert opened == Notice(f"{text[:397]}...", "bad")
    assert Notice.opened(Notice("x" * 400).sealed()) == Notice("x" * 400)


async def test_the_choice_of_colours_is_kept(browse: Make) -> None:
    browser = browse()
    for theme, shown in (("dark", "dark"), ("light", "light"), ("<b>", "auto")):
        answer = await browser.post("/actions/theme", theme=theme)
        assert answer.status_code == 303
        assert f'data-theme="{shown}"' in (await browser.get("/")).text
