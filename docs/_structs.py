"""Shows `msgspec.Struct` classes with the parameters that they take: griffe knows those of dataclasses only.

And examples, which stand in docstrings behind two colons, as Markdown wants them.
"""

from __future__ import annotations

import ast
from typing import Any

import griffe


class Structs(griffe.Extension):
    """Gives each struct the `__init__` that msgspec makes of its fields."""

    def __init__(self) -> None:
        self._known = {"Struct"}  # a base of one's own comes before what derives from it

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Griffe calls this for each object that it has read."""
        if obj.docstring is not None:
            obj.docstring.value = obj.docstring.value.replace("::\n\n", ":\n\n")

    def on_class_members(self, *, node: Any, cls: griffe.Class, **_: Any) -> None:
        """Griffe calls this for each class whose members it has read."""
        if not any(str(base).rpartition(".")[2] in self._known for base in cls.bases):
            return
        self._known.add(cls.name)
        words = {word.arg for word in node.keywords} if isinstance(node, ast.ClassDef) else set()
        kinds = griffe.ParameterKind
        kind = kinds.keyword_only if "kw_only" in words else kinds.positional_or_keyword
        fields = [
            griffe.Parameter(each.name, annotation=each.annotation, kind=kind, default=each.value)
            for each in cls.members.values()
            if isinstance(each, griffe.Attribute)
            and each.annotation
            and "ClassVar" not in str(each.annotation)
        ]
        itself = griffe.Parameter("self", kind=kinds.positional_or_keyword)
        cls.set_member("__init__", griffe.Function("__init__", parameters=griffe.Parameters(itself, *fields)))
