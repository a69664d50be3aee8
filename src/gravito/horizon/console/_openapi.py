"""The description of the JSON API, from the types that it answers with. https://spec.openapis.org/oas/v3.1.0"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

import msgspec

from gravito import __version__
from gravito.horizon.console._fields import Parameter

__all__ = ["Endpoint", "describe"]

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


def describe(endpoints: Sequence[Endpoint], actions: Mapping[str, Any], title: str) -> dict[str, Any]:
    """The whole description."""
    kinds = [*[one.answer for one in endpoints], Error, Outcome]
    parameters = [parameter.kind for one in endpoints for parameter in one.parameters]
    schemas, components = msgspec.json.schema_components([*kinds, *parameters], ref_template=_TEMPLATE)
    answers, texts = schemas[: len(kinds)], iter(schemas[len(kinds) :])
    paths: dict[str, Any] = {}
    for one, schema in zip(endpoints, answers, strict=False):
        query = [_parameter(parameter, next(texts)) for parameter in one.parameters]
        paths[one.path] = {"get": _reading(one, schema, query)}
    for name, function in sorted(actions.items()):
        paths[f"/api/actions/{name}"] = {"post": _acting(name, function, answers[-1])}
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


def _reading(one: Endpoint, schema: Any, query: list[Any]) -> dict[str, Any]:
    places = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in re.findall(r"{(\w+)}", one.path)
    ]
    return {
        "operationId": one.read.__name__,
        "summary": _first_line(one.read),
        "parameters": places + query,
        "responses": {"200": _json("As asked.", schema), **_errors("400", "401", "403", "404", "503")},
    }


def _acting(name: str, function: Any, schema: Any) -> dict[str, Any]:
    body = {"schema": {"type": "object", "additionalProperties": {"type": "string"}}}
    return {
        "operationId": name.replace(".", "_"),
        "summary": _first_line(function.do),
        "requestBody": {"content": {"application/x-www-form-urlencoded": body}},
        "responses": {
            "200": _json("It was dealt with.", schema),
            **_errors("400", "401", "403", "409", "503"),
        },
    }


def _parameter(parameter: Parameter, schema: Any) -> dict[str, Any]:
    return {"name": parameter.name, "in": "query", "description": parameter.about, "schema": schema}


def _json(about: str, schema: Any) -> dict[str, Any]:
    return {"description": about, "content": {"application/json": {"schema": schema}}}


def _errors(*statuses: str) -> dict[str, Any]:
    return {status: _json("Why not.", {"$ref": _TEMPLATE.format(name="Error")}) for status in statuses}


def _first_line(function: Any) -> str:
    return str(function.__doc__).partition("\n")[0]
