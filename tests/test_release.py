"""What is released says the same everywhere, and has all that it needs."""

import re
import sys
from pathlib import Path

import pytest

import lighter_async

ROOT = Path(__file__).parents[1]


@pytest.fixture
def project():
    """What `pyproject.toml` says."""
    tomllib = pytest.importorskip("tomllib" if sys.version_info >= (3, 11) else "tomli")
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_a_release_has_one_version(project):
    """In the package, its metadata, the citation, and the first section of the changelog that is dated."""
    version = project["project"]["version"]
    assert lighter_async.__version__ == version
    citation = (ROOT / "CITATION.cff").read_text()
    assert re.findall(r"^version: (\S+)$", citation, re.MULTILINE) == [version]
    (first, date), *_ = re.findall(r"^## \[([\d.]+)\] - (\S+)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert first == version
    assert re.findall(r'^date-released: "(\S+)"$', citation, re.MULTILINE) == [date]


def test_the_authors_are_those_of_the_license(project):
    """In the metadata and the citation."""
    (holder,) = re.findall(r"Copyright \(c\) \d+ (.+)", (ROOT / "LICENSE").read_text())
    assert [author["name"] for author in project["project"]["authors"]] == [holder]
    assert f"  - name: {holder}\n" in (ROOT / "CITATION.cff").read_text()


def test_the_wheel_has_types_and_all_that_is_no_code(project):
    """Type checkers look for the marker, and the report needs its page."""
    shipped = project["tool"]["setuptools"]["package-data"]
    package = ROOT / "lighter_async"
    others = {path for path in package.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")}
    found = {
        path
        for name, patterns in shipped.items()
        for pattern in patterns
        for path in (ROOT / name.replace(".", "/")).glob(pattern)
    }
    assert package / "py.typed" in found
    assert found == others


def test_the_oldest_python_is_the_same_everywhere(project):
    """For installers, and the linter, which writes nothing newer; and all classifiers are such versions."""
    oldest = project["project"]["requires-python"].removeprefix(">=")
    assert project["tool"]["ruff"]["target-version"] == f"py{oldest.replace('.', '')}"
    tried = re.search(r"^VERSIONS = (.+)$", (ROOT / ".ci" / "matrix.py").read_text(), re.MULTILINE)
    versions = re.findall(r'"([\d.]+)"', tried[1])
    assert versions[0] == oldest
    told = [one.rpartition(" ")[2] for one in project["project"]["classifiers"] if re.search(r"Python :: 3\.\d+$", one)]
    assert told
    assert set(told) <= set(versions)
