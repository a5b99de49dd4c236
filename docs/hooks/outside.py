"""Refuses a site whose pages load anything from another host: fonts, scripts, images."""

from __future__ import annotations

import logging
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

LOG = logging.getLogger("mkdocs.hooks.outside")
LOADED_BY = {
    "href": {"link"},
    "src": {"script", "img", "iframe", "source", "video", "audio", "embed"},
    "data": {"object"},
}
NOT_LOADED = {"canonical", "prev", "next", "alternate"}  # kinds of <link> that only tell


def on_post_build(config: Any) -> None:
    """Called by MkDocs when all files are written; a warning ends a strict build."""
    for path in Path(config.site_dir).rglob("*"):
        if path.suffix == ".html":
            found = Loaded()
            found.feed(path.read_text())
            addresses = found.addresses
        elif path.suffix == ".css":
            addresses = re.findall(r"url\([\"']?((?:https?:)?//[^)\"']+)", path.read_text())
        else:
            continue
        for address in addresses:
            LOG.warning("%s loads %s, from another host", path, address)


class Loaded(HTMLParser):
    """What a page loads from other hosts."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Called with each tag."""
        given = dict(attrs)
        if NOT_LOADED & set((given.get("rel") or "").split()):
            return
        for attribute, tags in LOADED_BY.items():
            address = given.get(attribute) or ""
            if tag in tags and re.match(r"(https?:)?//", address):
                self.addresses.append(address)
