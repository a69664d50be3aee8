"""Where the configuration comes from. The first of these that says anything is the one that counts:

1. what the program says: the mapping given to `DB.configure`
2. a Python file with a mapping named `DATABASE`: the one that the variable `GRAVITO_CONFIG` names, else
   `config/database.py` in the working directory
3. `REDIS_URL` in the process's environment
4. `REDIS_HOST`, `REDIS_PORT`, `REDIS_USERNAME`, `REDIS_PASSWORD`, `REDIS_DB` in the process's environment; those
   of them that are missing are taken from `.env`
5. `REDIS_URL`, else the five others, from a `.env` file in the working directory
6. nothing: connections that were added with `DB.add_connection`, and if there are none the embedded engine, with
   one INFO line that says so. `GRAVITO_ENV=production` makes the latter a ConfigurationError.

A connection that was added with `DB.add_connection` stands beside all of these, and goes before one of the same
name. A variable that is empty counts as missing. `GRAVITO_CONFIG` and `GRAVITO_ENV` may stand in `.env` too; the
process's environment goes first. The `.env` file is only read: nothing is put into the environment.
"""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from gravito.atlas._rules import suggestion
from gravito.atlas.config import Settings
from gravito.errors import ConfigurationError

__all__ = ["Configuration", "load_configuration", "read_connection"]

FILE = Path("config", "database.py")
ATTRIBUTE = "DATABASE"
NAME = "redis"  # what a connection is called that has no name of its own
VARIABLES = {
    "REDIS_HOST": "host",
    "REDIS_PORT": "port",
    "REDIS_USERNAME": "username",
    "REDIS_PASSWORD": "password",
    "REDIS_DB": "db",
}
_logger = logging.getLogger("gravito.atlas")


class Configuration(msgspec.Struct, frozen=True, kw_only=True):
    """All connections that are known.

    Args:
        default: the name of the default connection.
        connections: settings by name.
        origin: where it was found, in words for people: `REDIS_URL in the environment`.
    """

    default: str
    connections: dict[str, Settings]
    origin: str


def load_configuration(
    explicit: Mapping[str, Any] | None,
    cwd: Path,
    environ: Mapping[str, str],
    added: Mapping[str, Settings] | None = None,
) -> Configuration:
    """Find the configuration, in the order that this module's docstring states.

    Args:
        explicit: the program's own mapping; nothing else is looked at when there is one.
        cwd: the working directory.
        environ: the process's environment.
        added: connections that the program added one by one; they only matter when nothing else is found.

    Raises:
        ConfigurationError: what was found cannot be used, or nothing was found in production.
    """
    if explicit is not None:
        return read_mapping(explicit, "DB.configure")
    file = str(cwd / ".env")
    dotenv = _read_dotenv(cwd / ".env")
    process = {key: value for key, value in environ.items() if value}
    return (
        _from_file(cwd, dotenv | process)
        or _from_url(process, "the environment")
        or _from_variables(process, "the environment", dotenv, file)
        or _from_url(dotenv, file)
        or _from_variables(dotenv, file)
        or _from_nothing(dotenv | process, added or {})
    )


def read_mapping(mapping: Any, origin: str) -> Configuration:
    """`{"default": name, "connections": {name: {...} or url or Settings}}`, checked.

    `default` may be left out when there is one connection, or one that is called "redis".
    """
    try:
        return _read_mapping(mapping, origin)
    except ConfigurationError as error:
        raise _located(error, origin) from None


def read_connection(name: str, value: Mapping[str, Any] | str | Settings) -> Settings:
    """One connection from its mapping, its URL or ready settings; these take on the name."""
    if isinstance(value, Settings):
        return msgspec.structs.replace(value, name=name)
    if isinstance(value, str):
        return Settings.from_url(value, name=name)
    return Settings.from_mapping(name, value)


def _read_mapping(mapping: Any, origin: str) -> Configuration:
    allowed = '{"default": name, "connections": {name: options}}'
    if not isinstance(mapping, Mapping):
        raise ConfigurationError(f"is of type {type(mapping).__name__}; allowed: {allowed}", allowed=allowed)
    for key in mapping:
        if key not in ("default", "connections"):
            hint = suggestion(str(key), ("default", "connections"))
            raise ConfigurationError(
                f"unknown option {key!r}{hint}; allowed: {allowed}", field=str(key), allowed=allowed
            )
    given = mapping.get("connections")
    if not isinstance(given, Mapping) or not given:
        what = "is empty" if isinstance(given, Mapping) else f"is of type {type(given).__name__}"
        raise ConfigurationError(
            f"connections {what}; allowed: {allowed}", field="connections", allowed=allowed
        )
    connections = {name: read_connection(name, value) for name, value in given.items()}
    return Configuration(
        default=_default(mapping.get("default"), connections), connections=connections, origin=origin
    )


def _default(name: Any, connections: Mapping[str, Settings]) -> str:
    names = list(connections)
    if name is None and (len(names) == 1 or NAME in connections):
        return NAME if NAME in connections else names[0]
    if not isinstance(name, str) or name not in connections:
        hint = suggestion(name, names) if isinstance(name, str) else ""
        raise ConfigurationError(
            f"default is {name!r}; allowed: {', '.join(names)}{hint}",
            field="default",
            value=name,
            allowed=names,
        )
    return name


def _located(error: ConfigurationError, origin: str) -> ConfigurationError:
    """The same error, which also says where the setting stands."""
    message = f"{error} (from {origin})"
    return ConfigurationError(message, field=error.field, value=error.value, allowed=error.allowed)


def _read_dotenv(path: Path) -> dict[str, str]:
    if not path.is_file():
        return {}
    # most programs have no such file and should not pay for the import
    from dotenv import dotenv_values  # noqa: PLC0415

    try:
        values = dotenv_values(path, encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ConfigurationError(
            f"{path} cannot be read: {why}", field=".env", allowed="lines of NAME=value"
        ) from None
    return {key: value for key, value in values.items() if value}


def _from_file(cwd: Path, variables: Mapping[str, str]) -> Configuration | None:
    named = variables.get("GRAVITO_CONFIG")
    path = cwd / (named or FILE)
    if not path.is_file():
        if not named:
            return None
        allowed = f"the path of a Python file with a mapping named {ATTRIBUTE}"
        message = f"GRAVITO_CONFIG is {named!r}, where there is no file; allowed: {allowed}"
        raise ConfigurationError(message, field="GRAVITO_CONFIG", value=named, allowed=allowed)
    mapping = getattr(_import(path), ATTRIBUTE, None)
    if mapping is None:
        allowed = f'{ATTRIBUTE} = {{"default": name, "connections": {{name: options}}}}'
        raise ConfigurationError(
            f"{path} has no {ATTRIBUTE}; allowed: {allowed}", field=ATTRIBUTE, allowed=allowed
        )
    return read_mapping(mapping, str(path))


def _import(path: Path) -> object:
    spec = importlib.util.spec_from_file_location("_gravito_database_configuration", path)
    if spec is None or spec.loader is None:
        allowed = "the path of a Python file (.py)"
        message = f"GRAVITO_CONFIG is {str(path)!r}; allowed: {allowed}"
        raise ConfigurationError(message, field="GRAVITO_CONFIG", value=str(path), allowed=allowed)
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        # a syntax error, a missing variable, anything: the file's own traceback stays attached
        raise ConfigurationError(
            f"{path} cannot be imported: {type(error).__name__}: {error}", field=str(path)
        ) from error
    return module


def _from_url(variables: Mapping[str, str], where: str) -> Configuration | None:
    url = variables.get("REDIS_URL")
    return _single({"url": url}, f"REDIS_URL in {where}") if url else None


def _from_variables(
    own: Mapping[str, str], where: str, others: Mapping[str, str] | None = None, elsewhere: str = ""
) -> Configuration | None:
    """`own` decides if there is a configuration at all; `others` fill its gaps."""
    found = _relevant(own)
    if not found:
        return None
    filled = {key: value for key, value in _relevant(others or {}).items() if key not in found}
    origin = f"{', '.join(found)} in {where}"
    if filled:
        origin += f", {', '.join(filled)} in {elsewhere}"
    return _single({VARIABLES[key]: value for key, value in (found | filled).items()}, origin)


def _relevant(variables: Mapping[str, str]) -> dict[str, str]:
    # Kubernetes and Docker links set REDIS_PORT=tcp://10.0.0.1:6379 for a service called redis: nobody's setting
    return {
        key: variables[key]
        for key in VARIABLES
        if variables.get(key) and not (key == "REDIS_PORT" and variables[key].startswith("tcp://"))
    }


def _single(options: Mapping[str, Any], origin: str) -> Configuration:
    try:
        settings = Settings.from_mapping(NAME, options)
    except ConfigurationError as error:
        raise _located(error, origin) from None
    return Configuration(default=NAME, connections={NAME: settings}, origin=origin)


def _from_nothing(variables: Mapping[str, str], added: Mapping[str, Settings]) -> Configuration:
    if added:
        default = NAME if NAME in added else next(iter(added))
        return Configuration(default=default, connections={}, origin="DB.add_connection")
    advice = f"set REDIS_URL, write {FILE.as_posix()}, or call DB.configure"
    if variables.get("GRAVITO_ENV", "").lower() == "production":
        raise ConfigurationError(
            f"no connection is configured, and GRAVITO_ENV is production: {advice}",
            field="connections",
            allowed=advice,
        )
    _logger.info(
        "No connection is configured: using the embedded engine, which keeps nothing. To change that, %s.",
        advice,
    )
    settings = Settings(name=NAME, driver="embedded")
    return Configuration(
        default=NAME, connections={NAME: settings}, origin="nothing configured: the embedded engine"
    )
