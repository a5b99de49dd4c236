"""The jobs that are killed: each stores batches of rows, one after the other, in its own format; and its reader.

    python killed.py WAY FOLDER

After each batch it says on a line how many rows it has handed over. It does not end before it is killed.
"""

from __future__ import annotations

import io
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.lib.format import open_memmap

from lighter_async import ArrayTarget, BackgroundWriter, LocalTarget, Origin, TarShards, open_results

__all__ = ["BATCH", "WAYS", "row_values"]

BATCH, WIDTH, MOST = 64, 384, 100_000
STEP_SECONDS = 0.01

Batches = Iterator[tuple[int, torch.Tensor]]
"""The first row's number, and the rows."""


def row_values(row: int) -> np.ndarray:
    """What a row holds."""
    return np.arange(WIDTH, dtype=np.float32) + row


def batches() -> Batches:
    """A loop that takes 10 ms a step, and says what it has handed over."""
    for first in range(0, MOST, BATCH):
        yield first, torch.from_numpy(np.stack([row_values(row) for row in range(first, first + BATCH)]))
        print(first + BATCH, flush=True)
        time.sleep(STEP_SECONDS)


def service(make: Callable[[Path], Any], backend: Any, folder: Path) -> None:
    target = make(folder)
    with BackgroundWriter(
        None if isinstance(target, ArrayTarget) else "tensor", target=target, backend=backend
    ) as writer:
        for first, values in batches():
            rows = range(first, first + BATCH)
            names = None if isinstance(target, ArrayTarget) else [f"{row:08}" for row in rows]
            writer.submit_batch(names, values, origin=Origin(rows))


def of_service(where: str, folder: Path) -> dict[int, Any]:
    results = open_results(folder / where)
    return {int(name): np.asarray(results[name]) for name in results}


def array_of(folder: Path) -> ArrayTarget:
    return ArrayTarget(folder / "a.npy", rows=MOST // BATCH * BATCH)


def torch_save(folder: Path) -> None:
    for first, values in batches():
        for row, value in enumerate(values, first):
            torch.save(value.clone(), folder / f"{row:08}.pt")


def of_torch_save(folder: Path) -> dict[int, Any]:
    found = {}
    for path in folder.glob("*.pt"):
        try:
            found[int(path.stem)] = torch.load(path).numpy()
        except Exception:  # a half file
            continue
    return found


def webdataset_writer(folder: Path) -> None:
    import webdataset

    with webdataset.ShardWriter(f"{folder}/shard-%06d.tar", maxcount=1000, verbose=0) as writer:
        for first, values in batches():
            for row, value in enumerate(values, first):
                writer.write({"__key__": f"{row:08}", "pth": value.clone()})


def plain_tarfile(folder: Path) -> None:
    with tarfile.open(folder / "shard.tar", "w") as writer:
        for first, values in batches():
            for row, value in enumerate(values, first):
                content = io.BytesIO()
                torch.save(value.clone(), content)
                info = tarfile.TarInfo(f"{row:08}.pth")
                info.size = content.tell()
                content.seek(0)
                writer.addfile(info, content)


def of_tars(folder: Path) -> dict[int, Any]:
    found = {}
    for path in folder.glob("*.tar"):
        with tarfile.open(path) as tar:
            for member in tar:
                file = tar.extractfile(member)
                assert file is not None
                found[int(member.name.split(".")[0])] = torch.load(io.BytesIO(file.read())).numpy()
    return found


def memmap(folder: Path) -> None:
    array = open_memmap(folder / "a.npy", mode="w+", dtype=np.float32, shape=(MOST, WIDTH))
    for first, values in batches():
        array[first : first + BATCH] = values


def of_npy(folder: Path) -> dict[int, Any]:
    return dict(enumerate(np.load(folder / "a.npy", mmap_mode="r")))


def hdf5(folder: Path) -> None:
    import h5py

    with h5py.File(folder / "a.h5", "w") as file:
        rows = file.create_dataset("a", (0, WIDTH), np.float32, maxshape=(None, WIDTH), chunks=(BATCH, WIDTH))
        for first, values in batches():
            rows.resize(first + BATCH, axis=0)
            rows[first:] = values


def of_hdf5(folder: Path) -> dict[int, Any]:
    import h5py

    with h5py.File(folder / "a.h5") as file:
        return dict(enumerate(file["a"][:]))


def zarr_array(folder: Path) -> None:
    import zarr

    rows: Any = zarr.create_array(folder / "a.zarr", shape=(MOST, WIDTH), chunks=(BATCH, WIDTH), dtype=np.float32)
    for first, values in batches():
        rows[first : first + BATCH] = values.numpy()


def of_zarr(folder: Path) -> dict[int, Any]:
    import zarr

    rows: Any = zarr.open_array(folder / "a.zarr", mode="r")
    return dict(enumerate(rows[:]))


def _table(first: int, values: torch.Tensor) -> Any:
    import pyarrow

    column = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(values.numpy().reshape(-1)), WIDTH)
    numbers = pyarrow.array(range(first, first + len(values)), pyarrow.int64())
    return pyarrow.record_batch({"row": numbers, "value": column})


def parquet(folder: Path) -> None:
    import pyarrow.parquet

    with pyarrow.parquet.ParquetWriter(folder / "a.parquet", _table(0, torch.zeros(0, WIDTH)).schema) as writer:
        for first, values in batches():
            writer.write_batch(_table(first, values))


def arrow(folder: Path) -> None:
    import pyarrow

    with pyarrow.OSFile(str(folder / "a.arrow"), "wb") as file:
        with pyarrow.ipc.new_stream(file, _table(0, torch.zeros(0, WIDTH)).schema) as writer:
            for first, values in batches():
                writer.write_batch(_table(first, values))


def _rows_of(table: Any) -> dict[int, Any]:
    numbers = table["row"].to_pylist()
    return {
        number: np.array(value, np.float32) for number, value in zip(numbers, table["value"].to_pylist(), strict=True)
    }


def of_parquet(folder: Path) -> dict[int, Any]:
    import pyarrow.parquet

    return _rows_of(pyarrow.parquet.read_table(folder / "a.parquet"))


def of_arrow(folder: Path) -> dict[int, Any]:
    import pyarrow

    found = {}
    with pyarrow.OSFile(str(folder / "a.arrow"), "rb") as file:
        reader = pyarrow.ipc.open_stream(file)
        try:
            for batch in reader:
                found.update(_rows_of(batch))
        except (pyarrow.ArrowInvalid, OSError):
            pass  # the torn last batch: those before it are whole
    return found


def lance(folder: Path) -> None:
    import lance
    import pyarrow

    schema = _table(0, torch.zeros(0, WIDTH)).schema
    reader = pyarrow.RecordBatchReader.from_batches(schema, (_table(first, values) for first, values in batches()))
    lance.write_dataset(reader, str(folder / "a.lance"))


def of_lance(folder: Path) -> dict[int, Any]:
    import lance

    return _rows_of(lance.dataset(str(folder / "a.lance")).to_table())


def array_record(folder: Path) -> None:
    from array_record.python.array_record_module import ArrayRecordWriter

    writer = ArrayRecordWriter(str(folder / "a.array_record"), "group_size:1")
    for _, values in batches():
        for value in values.numpy():
            writer.write(value.tobytes())
    writer.close()


def of_array_record(folder: Path) -> dict[int, Any]:
    from array_record.python.array_record_module import ArrayRecordReader

    reader = ArrayRecordReader(str(folder / "a.array_record"))
    return {row: np.frombuffer(data, np.float32) for row, data in enumerate(reader.read_all())}


def litdata(folder: Path) -> None:
    from litdata.streaming.writer import BinaryWriter

    writer = BinaryWriter(str(folder), chunk_size=1000)
    for first, values in batches():
        for row, value in enumerate(values.numpy(), first):
            writer[row] = {"row": row, "value": value}
    writer.done()


def of_litdata(folder: Path) -> dict[int, Any]:
    import litdata as package

    return {int(one["row"]): np.asarray(one["value"]) for one in package.StreamingDataset(str(folder))}


Write = Callable[[Path], None]
Read = Callable[[Path], dict[int, Any]]
WAYS: dict[str, tuple[tuple[str, ...], Write, Read]] = {
    "files, helper processes": ((), partial(service, LocalTarget, "process"), partial(of_service, "")),
    "files, threads": ((), partial(service, LocalTarget, "thread"), partial(of_service, "")),
    "TarShards, helper processes": ((), partial(service, TarShards, "process"), partial(of_service, "")),
    "TarShards, threads": ((), partial(service, TarShards, "thread"), partial(of_service, "")),
    "ArrayTarget, helper processes": ((), partial(service, array_of, "process"), partial(of_service, "a.npy")),
    "ArrayTarget, threads": ((), partial(service, array_of, "thread"), partial(of_service, "a.npy")),
    "torch.save inline": ((), torch_save, of_torch_save),
    "webdataset.ShardWriter inline": (("webdataset",), webdataset_writer, of_tars),
    "tarfile inline": ((), plain_tarfile, of_tars),
    "ArrayRecord inline": (("array_record",), array_record, of_array_record),
    "LitData inline": (("litdata",), litdata, of_litdata),
    "numpy memmap inline": ((), memmap, of_npy),
    "zarr inline": (("zarr",), zarr_array, of_zarr),
    "HDF5 inline": (("h5py",), hdf5, of_hdf5),
    "Arrow IPC stream inline": (("pyarrow",), arrow, of_arrow),
    "Parquet inline": (("pyarrow",), parquet, of_parquet),
    "Lance inline": (("lance",), lance, of_lance),
}


if __name__ == "__main__":
    WAYS[sys.argv[1]][1](Path(sys.argv[2]))
