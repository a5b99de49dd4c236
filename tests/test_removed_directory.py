"""A directory that is removed during a run: what is gone is told and recorded no more, whatever it was stored in."""

import shutil

import numpy as np
import pytest

from lighter_async import (
    ArrayTarget,
    BackgroundWriter,
    LocalTarget,
    Origin,
    TableTarget,
    TarShards,
    WriteError,
    open_results,
    pending,
    read_manifest,
)
from lighter_async.manifest.verify import verify

KINDS = {
    "files": (lambda folder: LocalTarget(folder), "text", ["one", "two", "three"]),
    "shards": (lambda folder: TarShards(folder), "text", ["one", "two", "three"]),
    "array": (lambda folder: ArrayTarget(folder / "e.npy"), None, np.arange(1.0, 7.0).reshape(3, 2)),
    "table": (lambda folder: TableTarget(folder / "t.csv"), None, [{"x": 1}, {"x": 2}, {"x": 3}]),
}
GONE = "1 sample that was stored is gone with it; "
AGAIN = "run again with resume=True, and what is missing is computed"


def store(target, writer, values, indices, **options):
    """Hand samples over, by index, as a writer that the caller closes."""
    background = BackgroundWriter(writer, target=target, max_workers=1, **options)
    for index in indices:
        background.submit(str(index), values[index], origin=Origin([index]))
    background.flush()
    return background


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("backend", ["thread", pytest.param("process", marks=pytest.mark.long)])
def test_what_is_gone_with_a_directory_is_told_and_computed_by_the_next_run(tmp_path, capfd, kind, backend):
    """And what was stored since is whole."""
    out = tmp_path / "out"
    make, writer, values = KINDS[kind]
    background = store(make(out), writer, values, [0], backend=backend)
    shutil.rmtree(out)
    if kind == "table":
        # Its rows are one file, which would lack the first ones.
        background.submit("1", values[1], origin=Origin([1]))
        with pytest.raises(WriteError, match="somebody has removed the rows of the table"):
            background.flush()
        background.close()
    else:
        background.submit("1", values[1], origin=Origin([1]))
        background.close()
        assert read_manifest(make(out)).names() == {"1"}
    told = capfd.readouterr().err
    assert GONE in told
    assert AGAIN in told
    # While it is being removed, a new manifest may be begun before the last files are gone.
    assert ("verify" in told) == (kind != "table")
    left = list(pending(range(3), make(out)))
    assert left == ([0, 1, 2] if kind == "table" else [0, 2])
    store(make(out), writer, values, left, backend=backend, resume=True).close()
    assert verify(make(out)).is_sound
    found = open_results(make(out))
    assert sorted(found) == ["0", "1", "2"]
    for index in range(3):
        assert np.all(found[str(index)] == values[index])


@pytest.mark.parametrize("kind", KINDS)
def test_a_directory_that_is_removed_at_the_end_is_told_of(tmp_path, capfd, kind):
    """Once."""
    make, writer, values = KINDS[kind]
    background = store(make(tmp_path / "out"), writer, values, [0], backend="thread")
    shutil.rmtree(tmp_path / "out")
    background.close()
    assert capfd.readouterr().err.count(GONE) == 1
