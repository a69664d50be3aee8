"""The tree of errors, and how error replies find their class."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
import redis.exceptions as redis_errors

from gravito import errors
from gravito.atlas.wire.resp import error_from

ALL = [getattr(errors, name) for name in errors.__all__ if isinstance(getattr(errors, name), type)]


@pytest.mark.parametrize("cls", [cls for cls in ALL if issubclass(cls, Exception)])
def test_each_class_is_also_redis_pys(cls: Any) -> None:
    assert issubclass(cls, errors.GravitoError)
    assert issubclass(cls, redis_errors.RedisError)
    theirs = getattr(redis_errors, cls.__name__, None)
    if theirs is not None:
        assert issubclass(cls, theirs)


@pytest.mark.parametrize(
    ("text", "cls", "message"),
    [
        ("ERR plain", errors.ResponseError, "plain"),
        ("WRONGTYPE Operation", errors.WrongTypeError, "WRONGTYPE Operation"),
        ("WRONGPASS x", errors.AuthenticationError, "x"),
        ("NOAUTH x", errors.AuthenticationError, "x"),
        ("NOPERM x", errors.NoPermissionError, "x"),
        ("NOSCRIPT x", errors.NoScriptError, "x"),
        ("OOM x", errors.OutOfMemoryError, "x"),
        ("READONLY x", errors.ReadOnlyError, "x"),
        ("EXECABORT x", errors.ExecAbortError, "x"),
        ("BUSY x", errors.BusyError, "BUSY x"),
        ("LOADING x", errors.LoadingError, "x"),
        ("TRYAGAIN x", errors.TryAgainError, "x"),
        ("CLUSTERDOWN x", errors.ClusterDownError, "x"),
        ("MASTERDOWN x", errors.MasterDownError, "x"),
        ("CROSSSLOT x", errors.CrossSlotError, "x"),
        ("MOVED 12 10.0.0.1:7000", errors.MovedError, "12 10.0.0.1:7000"),
        ("ASK 12 10.0.0.1:7000", errors.AskError, "12 10.0.0.1:7000"),
        ("ERR max number of clients reached", errors.MaxClientsError, "max number of clients reached"),
        ("ERR user_script:3: no", errors.ScriptError, "user_script:3: no"),
        ("MOVED nonsense", errors.ResponseError, "MOVED nonsense"),
        ("ASK 1 nonsense", errors.ResponseError, "ASK 1 nonsense"),
        ("MOVED x y:z", errors.ResponseError, "MOVED x y:z"),
        ("CUSTOM x", errors.ResponseError, "CUSTOM x"),
        ("", errors.ResponseError, ""),
        ("LOADING", errors.LoadingError, ""),
    ],
)
def test_error_replies(text: str, cls: type[Exception], message: str) -> None:
    error = error_from(text)
    assert type(error) is cls
    assert str(error) == message
    assert isinstance(error, errors.GravitoError)
    assert error.status_code == text.partition(" ")[0]  # type: ignore[attr-defined]


def test_what_an_error_carries() -> None:
    error = errors.TimeoutError("late").about(command="GET", node="here:1", attempt=2, maybe_applied=True)
    assert (error.command, error.node, error.attempt, error.maybe_applied) == ("GET", "here:1", 2, True)
    assert repr(error) == "TimeoutError('late')"
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.command, again.maybe_applied) == ("late", "GET", True)
    assert isinstance(error, redis_errors.TimeoutError)
