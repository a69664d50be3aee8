"""A job's arguments: checked against its signature, encoded by name, decoded to the annotated types.

By name, so that a parameter with a default can be added, and parameters can change places, while bodies of the older
form still wait in the queue.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, get_type_hints

import msgspec

from gravito.errors import ConfigurationError, PayloadError
from gravito.horizon._inject import Injected

__all__ = ["Arguments", "decode_hook", "encode", "encode_hook", "injections", "typed_decoder"]

_PLAIN = (type(None), bool, int, float, str, bytes)
_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def encode_hook(value: Any) -> Any:
    """What msgspec cannot encode by itself: models of pydantic and their like."""
    dump = getattr(value, "model_dump", None)
    if dump is None or isinstance(value, type):
        raise NotImplementedError(f"a {type(value).__name__} cannot be encoded")
    return dump(mode="json")


def decode_hook(wanted: type, value: Any) -> Any:
    """The way back."""
    validate = getattr(wanted, "model_validate", None)
    if validate is not None:
        return validate(value)
    if isinstance(wanted, type) and isinstance(value, wanted):
        return value
    raise NotImplementedError(f"a {getattr(wanted, '__name__', wanted)} cannot be decoded")


encode = msgspec.msgpack.Encoder(enc_hook=encode_hook).encode


def typed_decoder(wanted: Any) -> msgspec.msgpack.Decoder[Any]:
    """A decoder of one type. Raises TypeError for a type that msgspec cannot decode to."""
    return msgspec.msgpack.Decoder(wanted, dec_hook=decode_hook)


class Arguments:
    """The parameters of one job.

    Args:
        job: its name, for messages.
        function: the function, or the class whose constructor takes the arguments.

    Raises:
        ConfigurationError: an annotation that cannot be resolved, or that msgspec cannot decode to.
    """

    def __init__(self, job: str, function: Callable[..., Any]) -> None:
        self._job = job
        self._signature, self.injected = _split(job, function)
        parameters = self._signature.parameters.values()
        self.names = tuple(item.name for item in parameters)
        self._positional = tuple(item.name for item in parameters if item.kind in _POSITIONAL)
        self._only_positional = tuple(p.name for p in parameters if p.kind is p.POSITIONAL_ONLY)
        self._rest = next((p.name for p in parameters if p.kind is p.VAR_POSITIONAL), None)
        self._more = next((p.name for p in parameters if p.kind is p.VAR_KEYWORD), None)
        self._plain = not self._only_positional and self._rest is None and self._more is None
        self._decode = self._decoder().decode

    def __repr__(self) -> str:
        return f"<Arguments of {self._job}{self._signature}>"

    def encode(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bytes:
        """The arguments as a MessagePack map, after a check that they can be decoded again.

        Raises:
            PayloadError: names the job, the parameter and the types.
        """
        given = self._by_name(args, kwargs)
        try:
            data = encode(given)
        except Exception as error:  # msgspec, or the user's own type
            raise self._unfit(given, error) from error
        try:
            self._decode(data)
        except Exception as error:
            raise self._unfit(given, error) from error
        return data

    def bind(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments by name, defaults included, for a user's function of them such as `unique`."""
        bound = self._signature.bind(*args, **kwargs)
        bound.apply_defaults()
        named = dict(bound.arguments)
        if self._more is not None:
            named.update(named.pop(self._more))
        return named

    def decode(self, data: bytes | msgspec.Raw) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """What to call the function with.

        Raises:
            PayloadError: names the job, the parameter and the types.
        """
        try:
            named: dict[str, Any] = msgspec.structs.asdict(self._decode(data))
        except Exception as error:  # msgspec, or the user's own type
            raise self._broken(error) from error
        if self._plain:
            return (), named
        first = [named.pop(name) for name in self._only_positional]
        if self._rest is not None:
            rest = named.pop(self._rest)
            if rest:
                first += [named.pop(name) for name in self._positional if name in named]
                first += rest
        if self._more is not None:
            named.update(named.pop(self._more))
        return tuple(first), named

    def _by_name(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        if self._plain and len(args) <= len(self._positional):
            given = dict(zip(self._positional, args, strict=False))
            given.update(kwargs)
            if len(given) == len(args) + len(kwargs):
                return given  # too few or unknown names are seen when it is decoded
        try:
            return dict(self._signature.bind(*args, **kwargs).arguments)
        except TypeError as error:
            raise self._error(f"{error}; its parameters are {self._signature}") from None

    def _unfit(self, given: dict[str, Any], error: Exception) -> PayloadError:
        """Say which argument it is."""
        try:
            self._signature.bind(**given) if self._plain else None
        except TypeError as wrong:
            return self._error(f"{wrong}; its parameters are {self._signature}")
        for name, value in given.items():
            try:
                data = encode(value)
            except Exception as reason:  # msgspec, or the user's own type
                return self._error(f"a {type(value).__name__} cannot be encoded ({reason}){_REMEDY}", name)
            try:
                typed_decoder(self._types[name]).decode(data)
            except Exception as reason:
                return self._error(f"it does not fit {_show(self._types[name])}: {reason}", name)
        return self._error(str(error))

    def _broken(self, error: Exception) -> PayloadError:
        return self._error(f"the stored arguments do not fit {self._signature}: {error}")

    def _error(self, reason: str, parameter: str | None = None) -> PayloadError:
        where = f"parameter {parameter!r} of job {self._job!r}" if parameter else f"job {self._job!r}"
        error = PayloadError(f"{where}: {reason}")
        error.job, error.parameter = self._job, parameter
        return error

    def _decoder(self) -> msgspec.msgpack.Decoder[Any]:
        self._types = {p.name: _type_of(p) for p in self._signature.parameters.values()}
        for name, wanted in self._types.items():
            try:
                typed_decoder(wanted)
            except TypeError as error:
                message = f"parameter {name!r} of job {self._job!r}: {error}"
                raise ConfigurationError(message, field=name, value=_show(wanted)) from error
        fields = [_field(p, self._types[p.name]) for p in self._signature.parameters.values()]
        struct = msgspec.defstruct(
            f"{self._job}_arguments", fields, kw_only=True, forbid_unknown_fields=True, gc=False
        )
        return typed_decoder(struct)


_REMEDY = "; give it a type that msgspec knows, or pass what it is made of"


def injections(job: str, function: Callable[..., Any]) -> dict[str, Any]:
    """The parameters that the worker fills in, with their types; for a method, without `self`.

    Raises:
        ConfigurationError: a parameter that is not filled in and has no default.
    """
    signature, injected = _split(job, function)
    for parameter in list(signature.parameters.values())[1:]:
        if parameter.default is parameter.empty and parameter.kind in (*_POSITIONAL, parameter.KEYWORD_ONLY):
            message = (
                f"job {job!r}: handle() is given nothing for {parameter.name!r}; take it in __init__, or mark "
                f"it with inject()"
            )
            raise ConfigurationError(message, field=parameter.name)
    return injected


def _split(job: str, function: Callable[..., Any]) -> tuple[inspect.Signature, dict[str, Any]]:
    """The signature, with types in the place of annotations, without what is injected; and that."""
    try:
        signature = inspect.signature(function)
        hints = get_type_hints(_annotated(function), include_extras=True)
    except NameError as error:
        message = (
            f"job {job!r}: an annotation cannot be resolved ({error}); import its type where the job is "
            f"defined, not only for type checkers"
        )
        raise ConfigurationError(message, field=getattr(error, "name", None)) from error
    kept, injected = [], {}
    for parameter in signature.parameters.values():
        if isinstance(parameter.default, Injected):
            if parameter.name not in hints:
                message = f"parameter {parameter.name!r} of job {job!r} needs an annotation to be injected by"
                raise ConfigurationError(message, field=parameter.name)
            injected[parameter.name] = hints[parameter.name]
        else:
            kept.append(parameter.replace(annotation=hints.get(parameter.name, parameter.empty)))
    return signature.replace(parameters=kept), injected


def _annotated(function: Callable[..., Any]) -> Any:
    if not isinstance(function, type):
        return function
    return function.__init__ if function.__init__ is not object.__init__ else _nothing  # type: ignore[misc]  # only read


def _nothing() -> None: ...


def _type_of(parameter: inspect.Parameter) -> Any:
    wanted = Any if parameter.annotation is parameter.empty else parameter.annotation
    if parameter.kind is parameter.VAR_POSITIONAL:
        return tuple[wanted, ...]  # type: ignore[valid-type]  # a type that is only known now
    if parameter.kind is parameter.VAR_KEYWORD:
        return dict[str, wanted]  # type: ignore[valid-type]  # a type that is only known now
    return wanted


def _field(parameter: inspect.Parameter, wanted: Any) -> Any:
    if parameter.kind is parameter.VAR_POSITIONAL:
        return (parameter.name, wanted, ())
    if parameter.kind is parameter.VAR_KEYWORD:
        return (parameter.name, wanted, msgspec.field(default_factory=dict))
    default = parameter.default
    if default is parameter.empty:
        return (parameter.name, wanted)
    if type(default) in _PLAIN:
        return (parameter.name, wanted, default)
    return (parameter.name, wanted, msgspec.field(default_factory=lambda: default))


def _show(wanted: Any) -> str:
    return wanted.__name__ if isinstance(wanted, type) else str(wanted).removeprefix("typing.")
