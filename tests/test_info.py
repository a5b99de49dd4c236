"""``lighter-async info``: what there is on a machine, and what ``backend="auto"`` would choose there."""

import re
import sys
from pathlib import Path

import pytest

import lighter_async
from lighter_async import BackgroundWriter, TableTarget, open_results, read_manifest
from lighter_async.cli import info, main
from lighter_async.cli.info import Found, lines_of
from lighter_async.errors import BackendUnavailableError
from lighter_async.optional_packages import EXTRAS, how_to_install, not_installed
from lighter_async.other_programs import CoresInUse

if sys.version_info >= (3, 11):
    import tomllib

VERSIONS = {"torch": "2.13.0", "lightning": "2.6.6", "tifffile": "2026.3.3"}


def told(**changes):
    facts = {
        "versions": VERSIONS,
        "cores": 8,
        "allowed": 4,
        "quota": None,
        "usable": 4,
        "used": CoresInUse(cores=4, own=0.5, others=0.25),
        "workers": 4,
        "queue_bytes": 1 << 30,
        "refused": None,
    }
    return lines_of(Found(**{**facts, **changes}))


def test_every_hint_to_install_a_package_is_worded_in_one_place():
    """Of this package's source alone; a Pillow that was built without WebP is there, and is to be replaced."""
    package = Path(lighter_async.__file__).parent
    with_hints = {path for path in package.rglob("*.py") if "pip install" in path.read_text()}
    assert {path.relative_to(package).as_posix() for path in with_hints} == {"optional_packages.py", "writers/webp.py"}


@pytest.mark.parametrize(
    ("package", "command"),
    [
        ("pyarrow", "pip install 'lighter-async[parquet]'"),
        ("lightning", "pip install 'lighter-async[lightning]'"),
        ("bench", "pip install 'lighter-async[bench]'"),
        ("pandas", "pip install pandas"),
    ],
)
def test_a_package_is_installed_by_the_extra_that_has_it(package, command):
    """What no extra has, and an extra, by its own name."""
    assert not_installed("it needs that", package) == f"it needs that, which is not installed: {command}"


@pytest.mark.parametrize("package", ["pandas", "pyarrow"])
def test_reading_records_without_a_package_tells_how_to_get_it(package, tmp_path, monkeypatch, capsys):
    """From Python and on the command line, in the same words."""
    with BackgroundWriter("text", tmp_path / "out", backend="thread") as writer:
        writer.submit("a", "x")
    with BackgroundWriter(target=TableTarget(tmp_path / "t.csv"), backend="thread") as writer:
        writer.submit("a", {"x": 1})
    for name in (package, f"{package}.parquet"):
        monkeypatch.setitem(sys.modules, name, None)
    call = "to_pandas" if package == "pandas" else "to_arrow"
    told = f"of {package}, which is not installed: {how_to_install(package)}"
    for results in (read_manifest(tmp_path / "out"), open_results(tmp_path / "t.csv")):
        with pytest.raises(ImportError, match=re.escape(told)):
            getattr(results, call)()
    if package == "pyarrow":
        assert main(["manifest", str(tmp_path / "out"), "--output", str(tmp_path / "x.parquet")]) == 2
        told = f"is written by pyarrow, which is not installed: {how_to_install('pyarrow')}\n"
        assert capsys.readouterr().err.endswith(told)


def test_versions_and_packages_are_told_with_the_way_to_those_that_are_not_there():
    """Either of Lightning's packages is enough."""
    lines = told()
    assert lines[0] == f"lighter_async {lighter_async.__version__}"
    assert lines[1].startswith(f"Python {sys.version.split()[0]}, ")
    assert lines[2] == "torch 2.13.0"
    assert "  lightning: lightning 2.6.6" in lines
    assert "  tiff: tifffile 2026.3.3" in lines
    assert "  parquet: not installed: pip install 'lighter-async[parquet]'" in lines
    assert "torch is not installed" in told(versions={})


@pytest.mark.skipif(sys.version_info < (3, 11), reason="tomllib came with Python 3.11")
def test_the_extras_are_those_of_the_package():
    """Each with what it installs first."""
    project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    assert EXTRAS.keys() == extras.keys() - {"dev", "docs", "release"}
    for extra, group in EXTRAS.items():
        assert any(re.match(rf"{re.escape(group[0])}\b", one) for one in extras[extra]), extra


def test_cores_are_told_as_they_are_seen():
    """Those that the process may run on, the container's limit, and what others use."""
    assert "cores: 4 of the machine's 8; other programs use 0.2 of them now" in told()
    limited = told(quota=1.5, usable=1, used=None)
    assert "cores: 4 of the machine's 8, with a CPU limit of 1.5" in limited


@pytest.mark.parametrize(
    ("facts", "chosen"),
    [
        ({}, "helper processes (helper processes leave the loop its interpreter lock)"),
        ({"used": None}, "helper processes (helper processes leave the loop its interpreter lock)"),
        ({"usable": 1}, "threads (helper processes would take turns with the loop on the one core)"),
        ({"refused": "no helper processes: no memory"}, "threads (no helper processes: no memory)"),
        (
            {"used": CoresInUse(cores=4, own=0.1, others=3.9)},
            "threads (other programs use 3.9 of 4 cores, and helper processes would give way to them)",
        ),
    ],
)
def test_what_auto_would_choose_is_told_with_the_reason(facts, chosen):
    """By the rule that a writer goes by."""
    lines = told(**facts)
    assert f"  for the formats of this package: {chosen}" in lines
    assert "  for writers and targets of your own: threads" in lines


def test_the_command_looks_at_this_machine(capsys, monkeypatch):
    """A helper is started to see whether there can be one."""
    monkeypatch.setattr(info, "_SECONDS_TO_LOOK", 0.0)
    monkeypatch.setattr(info, "look", lambda: None)
    monkeypatch.setattr(info, "usable_cores", lambda: 2)
    assert main(["info"]) == 0
    captured = capsys.readouterr()
    assert captured.out.splitlines()[0] == f"lighter_async {lighter_async.__version__}"
    assert "  for the formats of this package: helper processes (" in captured.out
    assert captured.err == ""


def test_a_machine_without_helpers_says_why(capsys, monkeypatch):
    """As an explicit choice of them would."""
    monkeypatch.setattr(info, "_SECONDS_TO_LOOK", 0.0)
    monkeypatch.setattr(info, "usable_cores", lambda: 2)

    def refuse(self):
        raise BackendUnavailableError("helper processes need descriptors, which cannot be had (none left)")

    monkeypatch.setattr("lighter_async.workers.process.backend.ProcessBackend.start", refuse)
    assert main(["info"]) == 0
    assert "threads (no helper processes: helper processes need descriptors" in capsys.readouterr().out
