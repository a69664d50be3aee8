"""The description of the JSON API, from the types that it answers with. https://spec.openapis.org/oas/v3.1.0"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

import msgspec
from msgspec.json import schema as json_schema

from gravito import __version__
from gravito.horizon.console._actions import Act
from gravito.horizon.console._fields import Parameter
from gravito.horizon.console._security import PROGRAM

__all__ = ["Endpoint", "describe"]

# As `Guard` has it.
_PROGRAM: Final = {
    "name": PROGRAM,
    "in": "header",
    "description": "1, in a request without cookies: a program asks. Not needed with a bearer token.",
    "schema": {"enum": ["1"]},
}
_TEMPLATE: Final = "#/components/schemas/{name}"


class Endpoint(msgspec.Struct, frozen=True):
    """Something that can be read.

    Args:
        path: with parameters in braces.
        read: reads it; the first line of its docstring describes it.
        answer: the type that it gives.
        parameters: of the query.
    """

    path: str
    read: Callable[[Any], Awaitable[Any]]
    answer: Any
    parameters: tuple[Parameter, ...] = ()


class Error(msgspec.Struct, frozen=True):
    """Why there is no answer."""

    error: str


class Outcome(msgspec.Struct, frozen=True):
    """What came of an action.

    Args:
        text: in words.
        done: whether something was done.
        more: whether there is more to do: ask once more.
    """

    text: str
    done: bool
    more: bool = False


class Health(msgspec.Struct, frozen=True):
    """Whether the queue's server answers: ok, or in words what is the matter."""

    status: str


def describe(endpoints: Sequence[Endpoint], actions: Mapping[str, Act], title: str) -> dict[str, Any]:
    """The whole description, but for where the console is."""
    kinds = [*[one.answer for one in endpoints], Error, Outcome, Health]
    schemas, components = msgspec.json.schema_components(kinds, ref_template=_TEMPLATE)
    paths: dict[str, Any] = {}
    for one, schema in zip(endpoints, schemas, strict=False):
        paths[one.path] = {"get": _reading(one, schema)}
    for name, act in sorted(actions.items()):
        paths[f"/api/actions/{name}"] = {"post": _acting(name, act, schemas[-2])}
    paths["/metrics"] = {"get": _metrics()}
    paths["/healthz"] = {"get": _health(schemas[-1])}
    return {
        "openapi": "3.1.0",
        "info": {"title": title, "version": __version__, "description": "Queues, jobs and workers."},
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer"},
                "basic": {"type": "http", "scheme": "basic"},
            },
        },
        "security": [{"token": []}, {"basic": []}, {}],
    }


def _reading(one: Endpoint, schema: Any) -> dict[str, Any]:
    places = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in re.findall(r"{(\w+)}", one.path)
    ]
    query = [
        {"name": field.name, "in": "query", "description": field.about, "schema": json_schema(field.kind)}
        for field in one.parameters
    ]
    missing = ("404",) if places else ()
    return {
        "operationId": one.read.__name__,
        "summary": _first_line(one.read),
        "parameters": places + query,
        "responses": {
            "200": _json("As asked.", schema),
            **_errors("400", "401", "403", *missing, "429", "503"),
        },
    }


def _acting(name: str, act: Act, schema: Any) -> dict[str, Any]:
    required = [field.name for field in act.fields if field.required]
    form = {
        "type": "object",
        "properties": {field.name: _field(field) for field in act.fields},
        "required": required,
        "additionalProperties": False,
    }
    return {
        "operationId": name.replace(".", "_"),
        "summary": _first_line(act.do),
        "parameters": [_PROGRAM],
        "requestBody": {
            "required": True,
            "content": {"application/x-www-form-urlencoded": {"schema": form}},
        },
        "responses": {
            "200": _json("It was dealt with.", schema),
            **_errors("400", "401", "403", "409", "413", "415", "429", "503"),
        },
    }


def _field(field: Parameter) -> dict[str, Any]:
    """The schema of a form's field; one that is repeated is an array, which forms send as the name again and again."""
    schema = json_schema(field.kind)
    if field.repeated:
        schema = {"type": "array", "items": schema, "minItems": 1}
    return {**schema, "description": field.about}


def _metrics() -> dict[str, Any]:
    text = {"text/plain": {"schema": {"type": "string"}}}
    return {
        "operationId": "prometheus",
        "summary": "Figures of all queues for Prometheus, as text or OpenMetrics.",
        "responses": {
            "200": {"description": "As asked.", "content": text},
            **_errors("401", "403", "429", "503"),
        },
    }


def _health(schema: Any) -> dict[str, Any]:
    return {
        "operationId": "health",
        "summary": "Whether the queue's server answers; needs no credentials.",
        "security": [{}],
        "responses": {
            "200": _json("It does.", schema),
            "503": _json("It does not.", schema),
            **_errors("403"),
        },
    }


def _json(about: str, schema: Any) -> dict[str, Any]:
    return {"description": about, "content": {"application/json": {"schema": schema}}}


def _errors(*statuses: str) -> dict[str, Any]:
    return {status: _json("Why not.", {"$ref": _TEMPLATE.format(name="Error")}) for status in statuses}


def _first_line(function: Any) -> str:
    return str(function.__doc__).partition("\n")[0]
