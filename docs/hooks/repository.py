"""Makes pages of the repository's files that pages link to, such as ``../CONTRIBUTING.md`` and ``../examples``.

So a link leads to the same text in the repository and on the site.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
FOLDER = "repository"  # of the site
LINK = re.compile(r"(?<=\]\()(?!\w+:)([^)\s#]+)(?=[)#])")


def on_files(files: Any, config: Any) -> Any:
    """Called by MkDocs with the pages that there are."""
    from mkdocs.structure.files import File

    looked_at = [f"docs/{file.src_uri}" for file in files.documentation_pages()]
    found: dict[str, None] = {}
    for source in looked_at:  # which grows
        for target in linked(source):
            if not target.startswith("docs/") and target not in found:
                found[target] = None
                if target.endswith(".md"):
                    looked_at.append(target)
    for source in found:
        files.append(File.generated(config, page_of(source), content=content_of(source)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Called by MkDocs for each page."""
    uri: str = page.file.src_uri
    return markdown if uri.startswith(f"{FOLDER}/") else with_links_of_the_site(markdown, f"docs/{uri}")


def linked(source: str) -> set[str]:
    """The repository's files that a document links to, as paths from the root."""
    targets = (target_of(link, source) for link in LINK.findall((ROOT / source).read_text()))
    return {target for target in targets if (ROOT / target).is_file()}


def target_of(link: str, source: str) -> str:
    """Where a relative link of a document leads, as a path from the repository's root."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(source), link))


def page_of(path: str) -> str:
    """The page of the site that a file of the repository is."""
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    return f"{FOLDER}/{path}" if path.endswith(".md") else f"{FOLDER}/{path}.md"


def content_of(source: str) -> str:
    """The page of a file outside of docs."""
    text = (ROOT / source).read_text()
    if source.endswith(".md"):
        return with_links_of_the_site(text, source)
    return (
        f"# {posixpath.basename(source)}\n\n`{source}` in the repository:\n\n```{Path(source).suffix[1:]}\n{text}```\n"
    )


def with_links_of_the_site(text: str, source: str) -> str:
    """A document whose links lead to the site's pages; one that leads nowhere is left, so that MkDocs complains."""
    page = page_of(source)

    def replaced(match: re.Match[str]) -> str:
        target = target_of(match[1], source)
        known = target.startswith("docs/") or (ROOT / target).is_file()
        return posixpath.relpath(page_of(target), posixpath.dirname(page) or ".") if known else match[1]

    return LINK.sub(replaced, text)
