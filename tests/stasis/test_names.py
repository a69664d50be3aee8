"""Keys, tags, namespaces and templates: what is refused, and that no two calls make one key."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gravito import errors
from gravito.stasis._names import Template, check_key, check_namespace, check_tag


class Colour(enum.Enum):
    RED = 1


class Status(enum.StrEnum):
    ACTIVE = "active"


class Right(enum.Flag):
    READ = 1
    WRITE = 2


@dataclass
class User:
    id: Any
    team: Any = None


@pytest.mark.parametrize("check", [check_key, check_tag])
@pytest.mark.parametrize(
    "name", ["a", "user:1", "with space", "é:ü", "x" * 1024, "é" * 512, "{slot}:1", "😀" * 256]
)
def test_names_that_are_taken(check: Any, name: str) -> None:
    assert check(name) is name


@pytest.mark.parametrize("check", [check_key, check_tag])
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "is empty: give 1 to 1024 bytes"),
        (None, "None is a NoneType: give a str"),
        (1, "1 is a int: give a str"),
        (b"k", "b'k' is a bytes: give a str"),
        ("x" * 1025, r"'xxx.*\.\.\. has 1025 bytes, more than 1024: use a digest"),
        ("é" * 513, "has 1026 bytes"),
        ("a\nb", r"'a\\nb' has control characters: leave them out"),
        ("a\0", "control characters"),
        ("a\x9b", "control characters"),
        ("\ud800", "has no UTF-8"),
    ],
)
def test_names_that_are_refused(check: Any, name: Any, message: str) -> None:
    with pytest.raises(errors.InvalidKeyError, match=message) as caught:
        check(name)
    assert isinstance(caught.value, ValueError)
    assert len(str(caught.value)) < 250
    assert check.__name__.removeprefix("check_") in str(caught.value)


def test_namespaces() -> None:
    for name in ("reports", "a.b-c_D9", "x" * 128):
        assert check_namespace(name) is name
    for wrong in ("", "a:b", "a/b", "a b", "é", "a\n", "x" * 129, None, 1, "{a}", "*"):
        with pytest.raises(errors.InvalidKeyError, match=r"namespace .*: use 1 to 128 of the characters"):
            check_namespace(wrong)  # type: ignore[arg-type]


# -- templates -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "values", "expected"),
    [
        ("all", {}, "all"),
        ("user:{id}", {"id": 1}, "user:1"),
        ("user:{id}", {"id": "1", "more": 2}, "user:1"),
        ("{a}:{b}", {"a": "x:1", "b": "2"}, "x%3A1:2"),
        ("{a}-{b}", {"a": -1, "b": "x-y:z"}, "%2D1:".replace(":", "-") + "x%2Dy%3Az"),
        ("{{{a}}}", {"a": "{x}"}, "{%7Bx%7D}"),
        ("ip:{ip}", {"ip": "::1"}, "ip:%3A%3A1"),
        ("u:{user.id}:{user.team.id}", {"user": User(1, User("t"))}, "u:1:t"),
        ("{a}", {"a": "é 100%\n"}, "é 100%25%0A"),
        ("x:{a}", {"a": ""}, "x:"),
        ("x:{a}", {"a": "\ud800"}, "x:%ED%A0%80"),
        ("{a}|{a}", {"a": 1.5}, "1.5|1.5"),
        ("x:{a}", {"a": None}, "x:%none"),
        ("x:{a}", {"a": True}, "x:%true"),
        ("x:{a}", {"a": UUID(int=1)}, "x:00000000-0000-0000-0000-000000000001"),
        ("x:{a}", {"a": Decimal("1.10")}, "x:1.10"),
        ("x:{a}", {"a": date(2026, 1, 2)}, "x:2026-01-02"),
        ("x:{a}", {"a": datetime(2026, 1, 2, 3, tzinfo=UTC)}, "x:2026-01-02T03%3A00%3A00+00%3A00"),
        ("x:{a}", {"a": timedelta(seconds=1)}, "x:0%3A00%3A01"),
        ("x:{a}", {"a": b"\xff:"}, "x:%xff3a"),
        ("x:{a}", {"a": Colour.RED}, "x:RED"),
        ("x:{a}", {"a": Status.ACTIVE}, "x:active"),
        ("x:{a}", {"a": Right.READ | Right.WRITE}, "x:READ|WRITE"),
        ("x:{a}", {"a": [1, "b,[", (None,)]}, "x:[1,b%2C%5B,[%none,],]"),
        ("x:{a}", {"a": {3, 1, 2}}, "x:%set[1,2,3,]"),
        ("x:{a}", {"a": (frozenset(), set())}, "x:[%set[],%set[],]"),
        ("x:{a}", {"a": []}, "x:[]"),
    ],
)
def test_rendering(text: str, values: dict[str, Any], expected: str) -> None:
    assert Template(text).render(values) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "key is empty"),
        ("user:{}", r"template 'user:\{\}': \{\} is not the name of an argument"),
        ("user:{0}", r"\{0\} is not the name"),
        ("user:{id!r}", "conversions and formats are not taken"),
        ("user:{id:>5}", "conversions and formats are not taken"),
        ("user:{user[id]}", r"\{user\[id\]\} is not the name"),
        ("user:{user.}", "not the name"),
        ("user:{a b}", "not the name"),
        ("user:{id", "expected '}'.* for a brace"),
        ("user:id}", "for a brace"),
        ("{a}{b}", r"nothing tells where \{a\} ends and \{b\} begins: put ':'"),
        ("{a}and{b}", "put ':'"),
        ("{a}1{b}", "put ':'"),
        ("{a}%{b}", "put ':'"),
    ],
)
def test_templates_that_are_refused(text: str, message: str) -> None:
    with pytest.raises(errors.InvalidKeyError, match=message):
        Template(text)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "template 'u:{user.id}' needs 'user', and got nothing"),
        ({"id": 1, "x": 2}, "needs 'user', and got id, x"),
        ({"user": 1}, r"\{user.id\}: 'int' object has no attribute 'id'"),
        ({"user": User(User(1))}, r"\{user.id\} is a User, which has no text of its own: use an attribute"),
        ({"user": User({"a": 1})}, "is a dict"),
        ({"user": User("x" * 1024)}, "has 1026 bytes, more than 1024"),
    ],
)
def test_values_that_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(errors.InvalidKeyError, match=message):
        Template("u:{user.id}").render(values)


_items = st.text(max_size=6) | st.text(alphabet=":-,_|", max_size=2) | st.text(alphabet="[],%2C") | st.none()
_parts = st.recursive(_items, lambda inner: st.lists(inner, max_size=3), max_leaves=4)


@pytest.mark.parametrize(
    "text", ["{a}:{b}", "{a}-{b}:end", "x{a},{b}", "{a}::{b}", "{a}_{b}", "{a}|x|{b}", "{{{a}}}:{b}"]
)
@given(one=st.tuples(_parts, _parts), other=st.tuples(_parts, _parts))
def test_no_two_sets_of_arguments_make_one_key(
    text: str, one: tuple[Any, Any], other: tuple[Any, Any]
) -> None:
    template = Template(text)
    first, second = (template.render({"a": a, "b": b}) for a, b in (one, other))
    assert (first == second) is (one == other)


def test_values_do_not_reach_into_the_next_field() -> None:
    """The pairs that collide when values are simply joined."""
    for text, one, other in (
        ("{a}:{b}", ("1:2", "3"), ("1", "2:3")), ("{a}-{b}", ("1", "-2"), ("1-", "2")), ("{a}:{b}", ("%3A", ""), (":", "")),
        ("x:{a}:{b}", (None, 1), ("None", 1)), ("x:{a}:{b}", (True, 1), ("True", 1)), ("{a},{b}", ([], ""), ([""], "")),
        ("{a}:{b}", ([1, 2], 3), (["1,2"], 3)), ("{a}:{b}", ([[1], 2], 3), ([[1, 2]], 3)), ("{a}:{b}", ("%none", 1), (None, 1)),
    ):  # fmt: skip
        keys = {Template(text).render({"a": a, "b": b}) for a, b in (one, other)}
        assert len(keys) == 2, text


@pytest.mark.parametrize("typed", [False, True])
def test_bytes_and_sets_are_neither_text_nor_lists(typed: bool) -> None:
    template = Template("x:{a}", typed=typed)
    values: list[Any] = [78, b"x", "%x78", "x", [1, 2], {1, 2}, "%set[1,2,]", [b"x"], {b"x"}, [[]], [set()]]
    assert len({template.render({"a": value}) for value in values}) == len(values)


def test_text_and_numbers_are_alike_unless_types_count() -> None:
    assert Template("user:{id}").render({"id": "1"}) == Template("user:{id}").render({"id": 1}) == "user:1"
    typed = Template("user:{id}", typed=True)
    assert typed.render({"id": 1}) == "user:1"
    assert typed.render({"id": "1:"}) == "user:'1%3A'"
    assert typed.render({"id": UUID(int=1)}) == "user:%UUID.00000000-0000-0000-0000-000000000001"
    assert typed.render({"id": Colour.RED}) == "user:%Colour.RED"
    assert typed.render({"id": [Status.ACTIVE, None]}) == "user:[%Status.active,%none,]"
    assert typed.render({"id": (1,)}) == typed.render({"id": [1]})


_simple = (
    (_items | st.binary(max_size=2) | st.booleans() | st.integers(-2, 80) | st.floats(-2, 2, allow_nan=False))
    | st.sampled_from(
        [Decimal("1.5"), Decimal(1), UUID(int=1), str(UUID(int=1)), Colour.RED, "RED", Status.ACTIVE]
    )
    | st.sampled_from([date(2026, 1, 2), "2026-01-02", time(10), timedelta(hours=10), "10:00:00"])
)
_typed = st.recursive(
    _simple,
    lambda inner: st.lists(inner, max_size=2) | st.lists(_simple, max_size=2).map(frozenset),
    max_leaves=3,
)


def _known(value: Any) -> Any:
    """What tells a value from others with its type: 1 == 1.0 == True, and 0.0 == -0.0."""
    if isinstance(value, list | frozenset):
        items = [_known(item) for item in value]
        return type(value).__name__, items if isinstance(value, list) else frozenset(map(repr, items))
    return type(value).__name__, repr(value)


@given(one=_typed, other=_typed)
def test_where_types_count_no_two_values_make_one_key(one: Any, other: Any) -> None:
    template = Template("x:{a}", typed=True)
    keys = {template.render({"a": value}) for value in (one, other)}
    assert (len(keys) == 1) is (_known(one) == _known(other))


def test_fields_and_names() -> None:
    template = Template("u:{user.id}:{lang}:{user.team.id}")
    assert template.fields == ("user.id", "lang", "user.team.id")
    assert template.names == {"user", "lang"}
    assert repr(template) == "<Template 'u:{user.id}:{lang}:{user.team.id}'>"


async def load(user_id: int, team_id: int, lang: str = "en") -> None: ...


def keyed(*, user_id: int, more: int = 0) -> None: ...


def variadic(user_id: int, *args: Any, **kwargs: Any) -> None: ...


def positional(user_id: int, /, lang: str = "en") -> None: ...


class Holder:
    def method(self, user_id: int) -> None: ...


def test_a_template_is_checked_against_a_function() -> None:
    assert Template("u:{user_id}").unused(load) == ("team_id", "lang")
    assert Template("u:{user_id}:{team_id}:{lang}").unused(load) == ()
    assert Template("u:{user_id}").unused(keyed) == ("more",)
    assert Template("u:{user_id}").unused(variadic) == ("args", "kwargs")
    assert Template("u:{user_id}").unused(Holder.method) == ("self",)
    for text, function, message in (
        ("u:{id}", load, r"template 'u:\{id\}': load has no parameter 'id'; it has user_id, team_id, lang"),
        ("u:{user.id}", load, "no parameter 'user'"),
        ("u:{kwargs}", variadic, "no parameter 'kwargs'; it has user_id"),
        ("u:{x}", lambda: 1, "has no parameter 'x'; it has none"),
    ):
        for check in (Template(text).unused, Template(text).binder):
            with pytest.raises(errors.InvalidKeyError, match=message):
                check(function)  # type: ignore[operator]


@pytest.mark.parametrize(
    ("function", "args", "kwargs", "expected"),
    [
        (load, (1, 2, "de"), {}, "u:1"),
        (load, (1, 2), {}, "u:1"),
        (load, (), {"team_id": 2, "user_id": 1}, "u:1"),
        (load, (1,), {"team_id": 2}, "u:1"),
        (keyed, (), {"user_id": 1}, "u:1"),
        (variadic, (1,), {}, "u:1"),
        (variadic, (1, 2, 3), {"x": 4}, "u:1"),
        (positional, (1,), {"lang": "de"}, "u:1"),
        (Holder.method, (Holder(), 1), {}, "u:1"),
    ],
)
def test_the_key_of_a_call(function: Any, args: Any, kwargs: Any, expected: str) -> None:
    assert Template("u:{user_id}").binder(function)(args, kwargs) == expected


def test_defaults_are_part_of_the_key() -> None:
    bound = Template("u:{lang}:{user_id}").binder(load)
    assert bound((1, 2), {}) == bound((1, 2, "en"), {}) == bound((), {"user_id": 1, "team_id": 2}) == "u:en:1"


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [
        ((), {}),
        ((1,), {}),
        ((1, 2, 3, 4), {}),
        ((1, 2), {"x": 1}),
        ((1, 2), {"user_id": 1}),
        ((1, 2, "en"), {"x": 1}),
    ],
)
def test_a_call_that_is_none_makes_no_key(args: Any, kwargs: Any) -> None:
    with pytest.raises(TypeError):
        Template("u:{user_id}").binder(load)(args, kwargs)


def test_a_template_without_fields_takes_any_function() -> None:
    assert Template("report").binder(lambda: 1)((), {}) == "report"
    assert Template("report").unused(load) == ("user_id", "team_id", "lang")
    with pytest.raises(TypeError):
        Template("report").binder(variadic)((), {})
