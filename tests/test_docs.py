"""The documents are true: their examples run, their tables and links agree with the code."""

import inspect
import os
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from harness import DEADLINE

import lighter_async
from lighter_async import BackgroundWriter, FileWriter, open_results, testing, writer_registry
from lighter_async.cli.parser import make_parser

ROOT = Path(__file__).parents[1]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "benchmarks/README.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
# Their examples are files that belong together, or need readers in processes of their own.
RUN_ELSEWHERE = {
    "docs/configuration.md": "test_the_page_of_configurations_does_as_it_says",
    "docs/jobs.md": "test_a_job_runs_and_may_be_run_again",
    "docs/ranks.md": "test_ranks_page.py",
    "docs/shards.md": "test_shards_readers.py",
    "docs/training_from_shards.md": "test_shards_readers.py",
    "docs/tutorial.md": "test_tutorial.py",
}
# Heavy ones, and those that the README has nearly alike, for `make test-long`.
LONG = {"docs/formats.md-4", "docs/lightning.md-0", "docs/neighbours.md-0", "docs/plain_loops.md-0"}


def path_of(page):
    return page.relative_to(ROOT).as_posix()


EXAMPLES = {
    f"{path_of(page)}-{number}": code
    for page in PAGES
    if path_of(page) not in RUN_ELSEWHERE
    for number, code in enumerate(re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL))
}


@pytest.mark.filterwarnings("ignore::UserWarning:pytorch_lightning")
@pytest.mark.filterwarnings("ignore::FutureWarning:pytorch_lightning")
@pytest.mark.filterwarnings("ignore:.* already exists, existing predictions will be overwritten")
@pytest.mark.parametrize(
    "code",
    [pytest.param(code, id=name, marks=[pytest.mark.long] if name in LONG else []) for name, code in EXAMPLES.items()],
)
def test_an_example_runs_as_it_stands(code, tmp_path, monkeypatch):
    """In an empty folder, and with nothing defined before it; and once more where it has left its results."""
    monkeypatch.chdir(tmp_path)
    # trio keeps the threads that it used for ten seconds, for the next one who needs one.
    monkeypatch.setattr("trio._core._thread_cache.IDLE_TIMEOUT", 0.001)
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


def test_the_fastapi_service_stores_every_prediction(tmp_path, monkeypatch):
    """The page's application behind a client: what it has answered with is stored when it is told to stop."""
    from fastapi.testclient import TestClient  # not above, where each process of pytest-xdist would import it

    monkeypatch.chdir(tmp_path)
    namespace = {"__name__": "app"}
    exec(dict(NAMED_FILE.findall((ROOT / "docs" / "asyncio.md").read_text()))["app.py"], namespace)
    with TestClient(namespace["app"]) as client:
        first, second = (client.post("/predict", params={"name": name}, json=[1, 2, 3, 4]) for name in ("a", "b/c"))
        unnamed = client.post("/predict", json=[0, 0, 0, 0.5])
        taken = client.post("/predict", params={"name": "a"}, json=[1, 2, 3, 4])
        outside = client.post("/predict", params={"name": "../a"}, json=[1, 2, 3, 4])
        short = client.post("/predict", json=[1, 2, 3])
        stats = client.get("/stats").json()
    assert [one.status_code for one in (first, second, unnamed)] == [200, 200, 200]
    assert [one.status_code for one in (taken, outside, short)] == [409, 409, 422]
    assert (stats["accepted"], stats["failed"]) == (3, 0)
    stored = open_results("predictions")
    assert set(stored) == {"a", "b/c", unnamed.json()["name"]}
    for answer in (first, second, unnamed):
        assert stored[answer.json()["name"]]["scores"] == answer.json()["scores"]


def test_what_is_said_of_examples_is_said_of_those_that_there_are():
    """A page that was renamed is not left out by its old name."""
    assert EXAMPLES.keys() >= LONG
    assert all((ROOT / page).exists() for page in RUN_ELSEWHERE)


def test_the_table_of_options_names_those_that_there_are():
    """Every keyword option of the two classes stands in the page's table, and no other."""
    section = (ROOT / "docs" / "options.md").read_text().split("\n## ")[0]
    told = set(re.findall(r"^\| `(\w+)`", section, re.MULTILINE))
    there = {
        parameter.name
        for one in (FileWriter, BackgroundWriter)
        for parameter in inspect.signature(one).parameters.values()
        if parameter.kind is parameter.KEYWORD_ONLY
    }
    assert told == there


def slugs(document):
    """What `#` may be followed by in a link to a document: its headings, as GitHub and the site name them."""
    text = re.sub(r"^```.*?^```", "", document.read_text(), flags=re.DOTALL | re.MULTILINE)
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    words = (re.sub(r"\[(.*?)\]\(.*?\)", r"\1", title).replace("`", "").strip().lower() for title in titles)
    return {re.sub(r"[^\w\- ]", "", title).replace(" ", "-") for title in words}


@pytest.mark.parametrize("document", PAGES, ids=path_of)
def test_links_between_documents_lead_somewhere(document):
    """Relative ones, to a file and to a heading in it; the others are not ours to keep."""
    for link, _, heading in re.findall(r"\]\(([^)#\s]*)(#([^)]+))?\)", document.read_text()):
        if not re.match(r"\w+:", link):
            target = document.parent / link if link else document
            assert target.exists(), link
            assert not heading or heading in slugs(target), f"{link}#{heading}"


def test_every_page_stands_in_the_sites_navigation():
    """Once, and no page that there is not."""
    _, _, navigation = (ROOT / "mkdocs.yml").read_text().partition("\nnav:\n")
    named = re.findall(r": ([\w/.-]+\.md)$", navigation, re.MULTILINE)
    # What lies outside of docs is a page below repository/: docs/hooks/repository.py.
    paths = sorted(one.removeprefix("repository/") if one.startswith("repository/") else f"docs/{one}" for one in named)
    assert [one for one in paths if one.startswith("docs/")] == sorted(
        path_of(page) for page in PAGES if (ROOT / "docs") in page.parents
    )
    assert all((ROOT / one).exists() for one in paths)


def test_the_reference_has_every_public_name():
    """Each once, on one of its pages."""
    pages = (ROOT / "docs" / "reference").glob("*.md")
    told = [name for page in pages for name in re.findall(r"^::: (\S+)$", page.read_text(), re.MULTILINE)]
    assert len(told) == len(set(told))
    public = {f"{package.__name__}.{name}" for package in (lighter_async, testing) for name in package.__all__}
    assert public <= set(told)


def test_the_reference_has_every_command_and_option():
    """Its page is made by the parser when the site is built."""
    made = runpy.run_path(str(ROOT / "docs" / "hooks" / "command_line.py"))
    page = made["on_page_markdown"]((ROOT / "docs" / "reference" / "command_line.md").read_text())
    (commands,) = (one for one in make_parser()._actions if one.dest == "command")
    for name, parser in commands.choices.items():
        section = page.split(f"\n## {name}\n")[1].split("\n## ")[0]
        for action in parser._actions:
            for option in action.option_strings:
                assert option in ("-h", "--help") or f"{option}" in section, option
    assert "%(" not in page


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


@pytest.mark.parametrize("document", PAGES, ids=path_of)
def test_files_that_a_document_names_exist(document):
    """By their paths, from the repository's root or the package's."""
    for path in re.findall(r"`((?:\w+/)+\w+\.py)`", document.read_text()):
        assert (ROOT / path).exists() or (ROOT / "lighter_async" / path).exists(), path
