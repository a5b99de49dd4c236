"""The documents are true: their examples run, their tables and links agree with the code."""

import inspect
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from harness import DEADLINE

from lighter_async import BackgroundWriter, FileWriter, open_results, writer_registry

ROOT = Path(__file__).parents[1]
DOCUMENTS = [
    ROOT / name
    for name in (
        *("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "benchmarks/README.md"),
        *(
            "docs/design.md",
            "docs/targets.md",
            "docs/arrays.md",
            "docs/formats.md",
            "docs/neighbours.md",
            "docs/tables.md",
            "docs/tuning.md",
            "docs/how_it_works.md",
            "docs/troubleshooting.md",
            "docs/comparison.md",
        ),
    )
]
# Their examples need readers that are run in processes of their own (`test_shards_readers.py`), or build on each other
# (`test_tutorial.py`, `test_ranks_page.py`).
PAGES = [
    *DOCUMENTS,
    *(
        ROOT / "docs" / f"{name}.md"
        for name in ("shards", "training_from_shards", "configuration", "jobs", "gpu", "benchmarks", "report")
    ),
    *(ROOT / "docs" / f"{name}.md" for name in ("tutorial", "ranks")),
]
EXAMPLES = [
    pytest.param(code, id=f"{document.name}-{number}")
    for document in DOCUMENTS
    for number, code in enumerate(re.findall(r"```python\n(.*?)```", document.read_text(), re.DOTALL))
]


@pytest.mark.filterwarnings("ignore::UserWarning:pytorch_lightning")
@pytest.mark.filterwarnings("ignore::FutureWarning:pytorch_lightning")
@pytest.mark.filterwarnings("ignore:.* already exists, existing predictions will be overwritten")
@pytest.mark.parametrize("code", EXAMPLES)
def test_an_example_runs_as_it_stands(code, tmp_path, monkeypatch):
    """In an empty folder, and with nothing defined before it; and once more where it has left its results."""
    monkeypatch.chdir(tmp_path)
    registered = dict(writer_registry._registry)
    for _ in range(2):
        try:
            exec(compile(code, "example", "exec"), {"__name__": "__main__"})
        finally:
            writer_registry._registry.clear()
            writer_registry._registry.update(registered)


JOBS = re.split(r"^## ", (ROOT / "docs" / "jobs.md").read_text(), flags=re.MULTILINE)[1:]


@pytest.mark.long
@pytest.mark.timeout(300)
@pytest.mark.parametrize("job", JOBS, ids=[job.splitlines()[0] for job in JOBS])
def test_a_job_runs_and_may_be_run_again(tmp_path, job):
    """In a folder with the files that it names."""
    *files, script = re.findall(r"(?:^`([\w.]+)`[^\n]*\n\n)?```python\n(.*?)```", job, re.DOTALL | re.MULTILINE)
    for name, text in files:
        (tmp_path / name).write_text(text)
    (tmp_path / "job.py").write_text(script[1])
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "job.py"],
            capture_output=True,
            text=True,
            timeout=2 * DEADLINE,
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        assert done.returncode == 0, done.stderr


NAMED_FILE = re.compile(r"^`([\w.]+)`\n\n```\w+\n(.*?)```$", re.DOTALL | re.MULTILINE)


@pytest.mark.long
@pytest.mark.timeout(300)
@pytest.mark.parametrize("package", ["LightningCLI", "Hydra", "lighter"])
def test_the_page_of_configurations_does_as_it_says(tmp_path, package):
    """Its files, in an empty folder, by the commands that stand below them."""
    page = (ROOT / "docs" / "configuration.md").read_text()
    shared, *sections = re.split(r"^## ", page, flags=re.MULTILINE)
    (section,) = (text for text in sections if text.startswith(f"{package}\n"))
    files = dict(NAMED_FILE.findall(shared + section))
    assert {"parts.py", "predict.yaml"} <= files.keys()
    if package == "lighter":
        files.update({"__init__.py": "", "__lighter__.py": ""})
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    (commands,) = re.findall(r"^```\n((?:python|lighter) .*?)```", section, re.DOTALL | re.MULTILINE)
    programs = {
        "python": [sys.executable, "-W", "ignore"],
        "lighter": [sys.executable, "-W", "ignore", "-c", "from lighter.engine.runner import cli; cli()"],
    }
    for command in commands.splitlines():
        program, *arguments = shlex.split(command)
        surroundings = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            [*programs[program], *arguments],
            capture_output=True,
            text=True,
            timeout=2 * DEADLINE,
            cwd=tmp_path,
            env=surroundings,
        )
        assert done.returncode == 0, done.stdout + done.stderr
    for key in ("mask", "image"):
        assert len(open_results(tmp_path / "predictions", key=key)) == 8
    assert len(open_results(tmp_path / ("means.npy" if package == "Hydra" else "means"))) == 8


def test_the_table_of_options_names_those_that_there_are():
    """Every keyword option of the two classes stands in the README's table, and no other."""
    section = (ROOT / "README.md").read_text().split("## Options")[1].split("\n## ")[0]
    told = set(re.findall(r"^\| `(\w+)`", section, re.MULTILINE))
    there = {
        parameter.name
        for one in (FileWriter, BackgroundWriter)
        for parameter in inspect.signature(one).parameters.values()
        if parameter.kind is parameter.KEYWORD_ONLY
    }
    assert told == there


@pytest.mark.parametrize("document", PAGES, ids=lambda path: path.name)
def test_links_between_documents_lead_somewhere(document):
    """Relative ones; the others are not ours to keep."""
    for link in re.findall(r"\]\(([^)#]+)\)", document.read_text()):
        if not link.startswith("http"):
            assert (document.parent / link).exists(), link


def test_the_commands_that_the_readme_names_exist():
    """Those of make, and the files that it points to."""
    readme, makefile = (ROOT / "README.md").read_text(), (ROOT / "Makefile").read_text()
    for target in re.findall(r"\bmake (\w[\w-]*)", readme):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
    for path in re.findall(r"`((?:examples|benchmarks|docs)/[\w./]+)`", readme):
        assert (ROOT / path).exists(), path


def test_the_design_names_every_file_of_the_larger_rooms():
    """A reader finds each there, with half a sentence, and none that is gone."""
    design = (ROOT / "docs/design.md").read_text()
    _, *parts = re.split(
        r"^\| \*\*`([\w/]+)/`\*\* \| \|$", design.partition("\nImports point one way")[0], flags=re.MULTILINE
    )
    rooms = dict(zip(parts[::2], parts[1::2], strict=True))
    assert rooms.keys() == {"callback", "service", "staging", "workers", "workers/process", "targets"}
    for room, files in rooms.items():
        there = {path.name for path in (ROOT / "lighter_async" / room).glob("*.py")} - {"__init__.py"}
        assert set(re.findall(r"`(\w+\.py)`", files)) == there


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_files_that_a_document_names_exist(document):
    """By their paths, from the repository's root or the package's."""
    for path in re.findall(r"`((?:\w+/)+\w+\.py)`", document.read_text()):
        assert (ROOT / path).exists() or (ROOT / "lighter_async" / path).exists(), path
