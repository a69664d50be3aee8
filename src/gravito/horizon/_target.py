"""Finding the Horizon of an application by `module:name`."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

from gravito.errors import ConfigurationError
from gravito.horizon.horizon import Horizon

__all__ = ["find"]


def find(target: str) -> Horizon:
    """The Horizon that `module:name` means; the module is imported, also from the present folder.

    Raises:
        ConfigurationError: there is none.
    """
    module, _, name = target.partition(":")
    if not module or not name:
        raise _wrong(target, f"{target!r} names no Horizon; say module:name, as app:horizon.")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        found: object = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not (module + ".").startswith(error.name + "."):
            raise  # the application's own imports are at fault: its traceback says where
        message = f"There is no module {module!r} in {here} or on the Python path."
        raise _wrong(target, message) from error
    for part in name.split("."):
        if not hasattr(found, part):
            raise _wrong(target, f"Module {module!r} has no {name!r}.")
        found = getattr(found, part)
    if not isinstance(found, Horizon):
        raise _wrong(target, f"{target} is a {type(found).__name__}, not a Horizon.")
    return found


def _wrong(target: str, message: str) -> ConfigurationError:
    return ConfigurationError(message, field="target", value=target, allowed="module:name, as app:horizon")
