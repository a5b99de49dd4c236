"""What is public, and which part may know which."""

import ast
import importlib
import inspect
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import get_origin

import pytest

import lighter_async

PACKAGE = Path(lighter_async.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))

PUBLIC = [
    "ArrayTarget",
    "ArrayWriter",
    "AsyncBackgroundWriter",
    "BackendUnavailableError",
    "BackgroundWriter",
    "BaseWriter",
    "ClosedError",
    "CsvWriter",
    "DuplicateNameError",
    "Encoder",
    "FileWriter",
    "FlushTimeoutError",
    "InvalidNameError",
    "LighterAsyncError",
    "LocalTarget",
    "Manifest",
    "NameTakenError",
    "Origin",
    "PathTarget",
    "PendingSampler",
    "QueueFullError",
    "ReadError",
    "Record",
    "Results",
    "ResumeError",
    "Run",
    "RunRecord",
    "TableTarget",
    "TableWriter",
    "TarShards",
    "Target",
    "WorkerDiedError",
    "WriteError",
    "WriteTimeoutError",
    "WriterRegistry",
    "WriterStats",
    "encoder",
    "open_results",
    "pending",
    "read_manifest",
    "write_image_2d",
    "write_image_3d",
    "write_jpeg",
    "write_json",
    "write_nifti",
    "write_npy",
    "write_safetensors",
    "write_tensor",
    "write_text",
    "write_tiff",
    "write_webp",
    "writer_registry",
]


# The public names


def test_the_public_names_are_these():
    """Adding one is a decision, removing one breaks somebody."""
    assert lighter_async.__all__ == PUBLIC
    assert set(PUBLIC) <= set(dir(lighter_async))
    assert lighter_async.__version__


def test_the_public_names_of_the_contracts_are_these():
    """They are imported from `lighter_async.testing`, by tests alone."""
    testing = importlib.import_module("lighter_async.testing")
    assert testing.__all__ == ["Attempts", "EncoderContract", "Fault", "FaultyTarget", "TargetContract"]


def test_the_contracts_need_pytest_and_nothing_else_does():
    """Without it, the error says how to get it."""
    script = """
        import sys
        sys.modules["pytest"] = None  # as if it were not installed
        import lighter_async
        from lighter_async import BackgroundWriter
        assert "lighter_async.testing" not in sys.modules
        try:
            import lighter_async.testing
        except ImportError as error:
            assert "pip install pytest" in str(error), error
        else:
            raise AssertionError
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_type_checkers_are_told_of_the_same_names():
    """Each from the module that it comes from when it is used, and as a name that may be imported from here."""
    tree = ast.parse(Path(lighter_async.__file__).read_text())
    block = next(node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    told = {}
    for node in block.body:
        for alias in node.names:
            assert alias.asname == alias.name
            told[alias.name] = node.module.removeprefix("lighter_async.")
    assert told == lighter_async._ROOM_OF


@pytest.mark.parametrize("name", PUBLIC)
def test_each_public_name_can_be_imported_and_is_documented(name):
    """With a docstring of its own; its methods have one too, and its properties one or a line among the attributes."""
    value = getattr(lighter_async, name)
    if not (inspect.isclass(value) or inspect.isroutine(value)):
        value = value.encode if isinstance(value, lighter_async.Encoder) else type(value)
    assert inspect.getdoc(value)
    if inspect.isclass(value):
        for attribute, member in vars(value).items():
            if attribute.startswith("_") or f"    {attribute}: " in inspect.getdoc(value):
                continue
            if inspect.isroutine(member) or isinstance(member, property):
                assert inspect.getdoc(getattr(value, attribute)), f"{name}.{attribute} has no docstring"


def test_an_unknown_name_is_an_attribute_error():
    """As in any module."""
    with pytest.raises(AttributeError, match="module 'lighter_async' has no attribute 'missing'"):
        lighter_async.missing  # noqa: B018


@pytest.mark.parametrize("module", [module for module in MODULES if "demo" not in module.parts], ids=str)
def test_what_a_module_exports_is_there_and_documented(module):
    """Every name in an __all__ exists, and every module says what it is for."""
    tree = ast.parse(module.read_text())
    assert ast.get_docstring(tree) or not tree.body, f"{module} has no docstring"
    if module.name == "__main__.py" or module == PACKAGE / "__init__.py":
        return
    exported = [
        node for node in tree.body if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
    ]
    for node in exported:
        room = importlib.import_module(dotted(module))
        for name in ast.literal_eval(node.value):
            value = getattr(room, name)
            if inspect.isfunction(value) or (
                inspect.isclass(value) and get_origin(value) is None
            ):  # no alias of a type
                assert inspect.getdoc(value), f"{name} of {module} has no docstring"


# What importing costs

LIGHT = """
    import pathlib, sys
    import lighter_async
    from lighter_async import BackgroundWriter, LocalTarget, WriteError, encoder, write_image_2d, writer_registry

    with BackgroundWriter("text", sys.argv[1]) as writer:
        writer.submit("a", "one")
        writer.submit_batch(["b", "c"], ["two", 3])
    with BackgroundWriter(encoder(suffix=".x")(lambda value: value), sys.argv[1]) as writer:
        writer.submit("d", b"bytes")
    written = {file.name: file.read_text() for file in pathlib.Path(sys.argv[1]).glob("*.*") if file.is_file()}
    assert written == {"a.txt": "one", "b.txt": "two", "c.txt": "3", "d.x": "bytes"}, written
    for module in ("torch", "lightning", "pytorch_lightning", "PIL"):
        assert module not in sys.modules, module
"""


def test_importing_and_writing_texts_needs_neither_torch_nor_lightning(tmp_path):
    """They take seconds to import and hundreds of megabytes; who does not use them does not pay."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(LIGHT), str(tmp_path)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


# Which part may know which

BELOW = {
    "errors": set(),
    "lazily": set(),
    "configs": set(),
    "plain_memory": set(),
    "npy": set(),
    "table_row": set(),
    "notices": set(),
    "tracebacks": {"errors"},
    "types": {"errors"},
    "cpu_quota": set(),
    "optional_packages": set(),
    "other_programs": set(),
    "waits_for_cores": set(),
    "advice": {"types"},
    "limits": {"cpu_quota"},
    "forks": set(),
    "positioned": set(),
    "locks": {"forks", "interrupts", "notices", "positioned"},
    "names": {"errors"},
    "whole_files": {"locks", "names", "positioned"},
    "without_links": {"names"},
    "runs": {"locks", "names"},
    "store": {"without_links", "errors", "whole_files", "names", "npy", "optional_packages", "positioned"},
    "interrupts": set(),
    "replacing": {"errors", "locks", "manifest", "names", "notices", "store", "types"},
    "data_set_fingerprint": {"names", "staging", "without_links"},
    "resume_checks": {"data_set_fingerprint", "errors", "locks", "manifest", "names", "notices"},
    "writers": {
        "plain_memory",
        "configs",
        "whole_files",
        "lazily",
        "limits",
        "names",
        "npy",
        "errors",
        "optional_packages",
        "table_row",
    },
    "manifest": {
        "without_links",
        "errors",
        "whole_files",
        "forks",
        "interrupts",
        "limits",
        "locks",
        "names",
        "notices",
        "optional_packages",
        "positioned",
        "runs",
        "store",
        "types",
    },
    "tables": {"errors", "manifest", "optional_packages", "store", "table_row"},
    "targets": {
        "without_links",
        "plain_memory",
        "configs",
        "errors",
        "whole_files",
        "forks",
        "interrupts",
        "lazily",
        "locks",
        "manifest",
        "names",
        "notices",
        "npy",
        "optional_packages",
        "positioned",
        "runs",
        "store",
        "table_row",
        "tables",
        "types",
    },
    "pickle_by_value": set(),
    "staging": {"plain_memory", "errors", "forks", "lazily", "notices"},
    "target_and_record": {"errors", "manifest", "notices", "targets", "writers"},
    "workers": {
        "advice",
        "plain_memory",
        "without_links",
        "forks",
        "interrupts",
        "lazily",
        "limits",
        "pickle_by_value",
        "staging",
        "writers",
        "whole_files",
        "manifest",
        "names",
        "errors",
        "target_and_record",
        "targets",
        "tracebacks",
        "types",
    },
    "ledger": {"errors", "interrupts", "tracebacks", "types"},
    "options": {"configs", "errors", "limits", "staging", "targets", "types", "writers"},
    "service": {
        "advice",
        "errors",
        "interrupts",
        "ledger",
        "limits",
        "manifest",
        "names",
        "notices",
        "options",
        "other_programs",
        "replacing",
        "data_set_fingerprint",
        "resume_checks",
        "target_and_record",
        "staging",
        "store",
        "targets",
        "types",
        "waits_for_cores",
        "workers",
        "writers",
    },
}
ABOVE = {
    "aio": {*BELOW},
    "callback": {*BELOW},
    "resume": {"data_set_fingerprint", "errors", "manifest", "names", "notices", "resume_checks", "store", "targets"},
    "results": {"errors", "manifest", "names", "npy", "optional_packages", "store", "tables", "writers"},
    "report": {"errors", "whole_files", "locks", "manifest", "names", "store", "workers"},
    "cli": {*BELOW, "aio", "callback", "report", "resume"},
    "testing": {*BELOW},
}
# The same within a room that has several ideas.
WITHIN = {
    "aio": {"threads": set(), "watch": set(), "writer": {"threads", "watch"}},
    "locks": {
        "flock": set(),
        "owner": set(),
        "alone": {"flock"},
        "run_lock": {"flock", "owner"},
        "orphans": {"owner", "run_lock"},
    },
    "manifest": {
        "line": set(),
        "indices": set(),
        "entry": {"line"},
        "keys": {"line"},
        "run_lines": {"entry", "line"},
        "parsing": {"entry", "line"},
        "block": {"entry", "keys", "line"},
        "columns": {"block", "entry", "line"},
        "latest": {"block", "entry", "keys"},
        "records": {"block", "entry", "keys"},
        "reader": {"columns", "entry", "indices", "latest", "line", "parsing", "records"},
        "adopt": {"columns", "entry", "line", "reader", "records"},
        "other_ranks": {"entry", "reader"},
        "following": {"entry", "parsing", "reader"},
        "so_far": {"columns", "entry", "line", "parsing", "reader"},
        "restoring": {"columns", "entry", "line", "parsing", "reader", "run_lines"},
        "log": {"columns", "entry", "line", "other_ranks", "reader", "restoring", "run_lines", "so_far"},
        "verify": {"adopt", "block", "entry", "log", "reader"},
    },
    "names": {"checks": set(), "number_ranges": set(), "used_names": {"number_ranges"}, "claims": {"used_names"}},
    "store": {
        "base": set(),
        "zarr_rows": set(),
        "directory": {"base", "zarr_rows"},
        "sealed_table": {"base"},
        "source": {"base", "directory", "sealed_table", "zarr_rows"},
    },
    "report": {
        "runs": set(),
        "outputs": set(),
        "failures": set(),
        "listing": set(),
        "facts": {"failures", "listing", "outputs", "runs"},
        "page": {"facts"},
    },
    "service": {
        "held_up": set(),
        "names_and_indices": set(),
        "setup": set(),
        "starting": {"setup"},
        "start_and_end_lock": set(),
        "unclosed_at_exit": set(),
        "lifecycle": {"held_up", "setup", "starting", "start_and_end_lock", "unclosed_at_exit"},
        "early_close": {"lifecycle", "unclosed_at_exit"},
        "handover": {"names_and_indices", "lifecycle", "setup"},
        "nonblocking_steps": {"handover", "lifecycle"},
        "writer": {"early_close", "handover", "lifecycle", "names_and_indices", "nonblocking_steps", "setup"},
    },
}


def dotted(module):
    return ".".join(module.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")


def imports_of(module):
    """The modules that a file imports when it runs, wherever in it; not those that only its types need."""
    tree = ast.parse(module.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} imports relatively"
            yield node.module
            if node.module == "lighter_async":
                yield from (f"lighter_async.{alias.name}" for alias in node.names)


def room_of(module):
    return module.relative_to(PACKAGE).with_suffix("").parts[0]


@pytest.mark.parametrize("module", [module for module in MODULES if room_of(module) != "__init__"], ids=dotted)
def test_imports_point_one_way(module):
    """Errors and types, then writers, targets and staging, workers, the service, and its three faces."""
    room = room_of(module)
    if room == "__main__":
        return
    allowed = {room, *{**BELOW, **ABOVE}[room]}
    for name in imports_of(module):
        if name.split(".")[0] != "lighter_async" or name == "lighter_async":
            continue
        other = name.split(".")[1]
        if other in lighter_async.__all__ or other.startswith("__"):
            other = lighter_async._ROOM_OF.get(other, room)
        assert other in allowed, f"{room} must not know {other}"


@pytest.mark.parametrize("room", WITHIN)
def test_imports_point_one_way_within_a_room(room):
    """Each part knows those before it alone, and nothing but the room's own face knows them all."""
    parts = {module.stem: module for module in (PACKAGE / room).glob("*.py") if module.stem != "__init__"}
    assert parts.keys() == WITHIN[room].keys()
    for part, module in parts.items():
        prefix = f"lighter_async.{room}."
        known = {name.removeprefix(prefix).split(".")[0] for name in imports_of(module) if name.startswith(prefix)}
        assert known <= WITHIN[room][part], f"{part} of {room} must not know {known - WITHIN[room][part]}"
        assert f"lighter_async.{room}" not in imports_of(module), f"{part} of {room} imports the room that it is in"
    in_order(WITHIN[room])


@pytest.mark.parametrize("module", [one for one in MODULES if room_of(one) in ("aio", "service")], ids=dotted)
def test_the_service_and_its_asyncio_face_keep_to_public_members(module):
    """What one class keeps to itself, no other one looks at."""
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.startswith("__"):
            assert ast.unparse(node.value) in ("self", "cls"), f"{ast.unparse(node)} in line {node.lineno}"


@pytest.mark.parametrize("module", MODULES, ids=dotted)
def test_lightning_is_known_to_the_callback_alone(module):
    """And to the command line's demo, which runs a job with it."""
    if room_of(module) in ("callback", "cli"):
        return
    roots = {name.split(".")[0] for name in imports_of(module)}
    assert not roots & {"lightning", "pytorch_lightning", "lightning_fabric"}
    if room_of(module) != "lazily":  # which imports the package's own modules by name
        assert "importlib" not in roots


def test_every_part_has_its_place_in_the_order():
    """A new module must be given one."""
    rooms = {room_of(module) for module in MODULES} - {"__init__", "__main__"}
    assert rooms == {*BELOW, *ABOVE}
    for room, below in {**BELOW, **ABOVE}.items():
        assert room not in below
    in_order(BELOW)


def in_order(rooms):
    """Fails where rooms know each other in a circle."""
    order = []
    left = dict(rooms)
    while left:
        ready = [room for room, below in left.items() if below <= {*order}]
        assert ready, f"a cycle among {sorted(left)}"
        order += ready
        for room in ready:
            del left[room]
