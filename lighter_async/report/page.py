"""The page: one file of HTML, with its style, its script and all data inside."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import os
import pkgutil
import re
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from lighter_async.report.facts import Facts

__all__ = ["page_of"]

_SCRIPTS = ("parts.js", "charts.js", "overview.js", "samples.js", "page.js")
_PLACE = re.compile(r"\{\{(\w+)\}\}")
_POLICY = "default-src 'none'; base-uri 'none'; form-action 'none'; img-src 'self' file: data:;"
# What would end a block of data, or begin a comment, whatever a browser makes of the text around it.
_UNSAFE = {ord(character): f"\\u{ord(character):04x}" for character in "<>&"}


def page_of(facts: Facts, place: Path) -> str:
    """The page, in ASCII.

    It loads nothing but images of samples, by their paths from where it lies, and no script runs in it but its own.

    Args:
        facts: What it says.
        place: The file that it will be: images are found from there.
    """
    style = _part("page.css")
    script = '"use strict";\n' + "\n".join(map(_part, _SCRIPTS))
    parts = {
        "title": html.escape(facts.title).encode("ascii", "xmlcharrefreplace").decode(),
        "style": style,
        "script": script,
        "policy": f"{_POLICY} style-src '{_hash(style)}'; script-src '{_hash(script)}'",
        "data": json.dumps(_data(facts, place), separators=(",", ":"), allow_nan=False).translate(_UNSAFE),
    }
    return _PLACE.sub(lambda found: parts[found[1]], _part("page.html"))


def _part(name: str) -> str:
    content = pkgutil.get_data("lighter_async.report", name)
    assert content is not None
    return content.decode("ascii")


def _hash(text: str) -> str:
    """What a policy knows a style or a script by: https://www.w3.org/TR/CSP3/#match-element-to-source-list."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _data(facts: Facts, place: Path) -> dict[str, Any]:
    about = {name: getattr(facts, name) for name in facts.__slots__ if name not in ("directory", "listing")}
    listing = facts.listing
    return {
        **{name: _plain(value) for name, value in about.items()},
        "base": _address(facts.directory, place.parent),
        "listing": {
            **{name: getattr(listing, name) for name in listing.__slots__ if name != "alike"},
            "alike": [asdict(one) for one in listing.alike],
        },
    }


def _plain(value: Any) -> Any:
    if not isinstance(value, list):
        return value
    return [asdict(one) if is_dataclass(one) and not isinstance(one, type) else one for one in value]


def _address(directory: Path, folder: Path) -> str:
    """Where a directory lies, seen from a folder, as the beginning of an address."""
    path = os.path.relpath(os.path.realpath(directory), os.path.realpath(folder))
    return f"./{quote(os.fsencode(path))}/"
