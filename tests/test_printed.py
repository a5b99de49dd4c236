"""What users print is one short line, whatever it holds."""

import numpy as np
import pytest
import torch

from lighter_async import (
    ArrayTarget,
    ArrayWriter,
    AsyncBackgroundWriter,
    BackgroundWriter,
    FileWriter,
    LocalTarget,
    Origin,
    TableTarget,
    TableWriter,
    TarShards,
    open_results,
    pending,
    read_manifest,
    writer_registry,
)
from lighter_async.manifest.verify import verify

COUNT = 3000


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """A directory with thousands of samples, of which one is damaged."""
    folder = tmp_path_factory.mktemp("stored") / "out"
    with BackgroundWriter("text", folder, backend="thread", run_config={"words": "x" * 1000}) as writer:
        names = [f"sample-{number}" for number in range(COUNT)]
        writer.submit_batch(names, names, origin=Origin(range(COUNT)))
    (folder / "sample-7.txt").unlink()
    return folder


@pytest.mark.filterwarnings("ignore:.* are gone from ")
@pytest.mark.parametrize(
    ("make", "printed"),
    [
        (read_manifest, "<Manifest of {folder!r}: 3000 records, 1 run>"),
        (lambda folder: read_manifest(folder).records, "<Records: 3000>"),
        (lambda folder: read_manifest(folder).done(), "IndexSet(3000 indices)"),
        (open_results, "<3000 results of writer 'text' in {folder!r}>"),
        (
            lambda folder: open_results(folder).dataset(),
            "<ResultsDataset of <3000 results of writer 'text' in {folder!r}>>",
        ),
        (
            lambda folder: pending(range(COUNT + 2), folder, names="sample-{}".format),
            "<PendingSampler: 2 of 3002 items>",
        ),
        (verify, "<Report of {folder!r}: 3000 compared, 1 missing>"),
        (lambda folder: BackgroundWriter("text", folder), "<BackgroundWriter 'text' to {folder!r}, new>"),
        (lambda folder: AsyncBackgroundWriter("text", folder), "<AsyncBackgroundWriter 'text' to {folder!r}, new>"),
        (LocalTarget, "LocalTarget({folder!r}, if_exists='overwrite', durability='rename')"),
        (
            lambda folder: TarShards(folder, if_exists="skip"),
            "TarShards({folder!r}, if_exists='skip', durability='rename')",
        ),
        (
            lambda folder: ArrayTarget(folder / "e.npy", durability="fsync"),
            "ArrayTarget('{folder}/e.npy', if_exists='overwrite', durability='fsync')",
        ),
        (
            lambda folder: TableTarget(folder / "t.csv"),
            "TableTarget('{folder}/t.csv', if_exists='overwrite', durability='rename')",
        ),
        (lambda folder: FileWriter(folder, "mask", "text"), "<FileWriter of 'mask' to {folder!r}>"),
        (
            lambda folder: FileWriter(folder, {"mask": "image_2d", "logits": "tensor"}),
            "<FileWriter of 'mask', 'logits' to {folder!r}>",
        ),
        (lambda folder: ArrayWriter(folder / "e.npy", "embedding"), "<ArrayWriter of 'embedding' to '{folder}/e.npy'>"),
        (lambda folder: TableWriter(folder / "t.csv", ["a", "b"]), "<TableWriter of 'a', 'b' to '{folder}/t.csv'>"),
        (lambda folder: Origin([0, 1], batch=3), "Origin([0, 1], loader=0, batch=3)"),
        (lambda folder: Origin(range(COUNT)), "Origin(range(0, 3000), loader=0, batch=None)"),
        (lambda folder: Origin(list(range(COUNT))), "Origin(<3000 indices, 0 to 2999>, loader=0, batch=None)"),
        (lambda folder: Origin(torch.arange(COUNT)), "Origin(<3000 indices>, loader=0, batch=None)"),
        (lambda folder: Origin(np.arange(COUNT), 1), "Origin(<3000 indices>, loader=1, batch=None)"),
        (lambda folder: Origin(), "Origin(None, loader=0, batch=None)"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_it_says_what_it_is_and_how_much(stored, make, printed):
    """As `print` and a notebook show it."""

    assert repr(make(stored)) == printed.replace("{folder!r}", repr(str(stored))).replace("{folder}", str(stored))


def test_runs_and_registries_are_short_too(stored):
    """Without a configuration of any length."""
    (run,) = read_manifest(stored).runs
    assert repr(run) == (
        f"RunRecord(run={run.run!r}, writer='text', key='', rank=0, world_size=1, resume=False, sequence=1)"
    )
    assert repr(writer_registry).startswith("<WriterRegistry: tensor, ")
