"""Has the reference show the options of the classes that take them, which `lighter_async` puts in at import."""

from __future__ import annotations

import importlib
import inspect
import re
from typing import Any

import griffe

PLACE = "{options}"


class Options(griffe.Extension):
    """Docstrings and signatures of decorated classes are those that `help` shows."""

    def on_class(self, *, cls: griffe.Class, **_: Any) -> None:
        """Called with each class that was read."""
        if cls.docstring is None or PLACE not in cls.docstring.value:
            return
        made = getattr(importlib.import_module(cls.module.path), cls.name)
        cls.docstring.value = inspect.getdoc(made)
        init = cls.members["__init__"]
        written = {one.name: one for one in init.parameters}
        init.parameters = griffe.Parameters(
            *(
                written.get(name) or _parameter(one)
                for name, one in {"self": None, **inspect.signature(made).parameters}.items()
            )
        )


def _parameter(one: inspect.Parameter) -> griffe.Parameter:
    annotation = re.sub(r"\b(?:\w+\.)+(?=\w)", "", inspect.formatannotation(one.annotation))
    annotation = re.sub(r"^Optional\[(.*)\]$", r"\1 | None", annotation)
    return griffe.Parameter(
        one.name, annotation=annotation, kind=griffe.ParameterKind.keyword_only, default=repr(one.default)
    )
