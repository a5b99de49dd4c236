"""What every encoder must do."""

from __future__ import annotations

import copy
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from lighter_async.errors import WriteError
from lighter_async.pickle_by_value import dumps, loads
from lighter_async.plain_memory import Block, Rows
from lighter_async.service import BackgroundWriter
from lighter_async.staging import StagingPool
from lighter_async.targets import LocalTarget
from lighter_async.testing.equality import is_equal
from lighter_async.types import BackendName
from lighter_async.workers.process.launch import supported
from lighter_async.writers import Encoder

__all__ = ["EncoderContract"]


class EncoderContract:
    """The suite. A subclass has the fixtures `encoder`, and `values`: a list of values that it takes.

    ```python
    class TestNpy(EncoderContract):
        @pytest.fixture
        def encoder(self):
            return encode_npy

        @pytest.fixture
        def values(self):
            return [torch.rand(3, 4), torch.zeros(0), torch.arange(5)]
    ```

    Attributes:
        is_deterministic: Whether equal values give equal bytes. If not, bytes are not compared, and what they decode
            to is, where there is a decoder.
        wrong_options: Keyword options that it refuses when it is made with them, each set by itself.
        decodes_with: Keyword arguments of `Encoder.decode`, such as ``{"trust": True}``.
    """

    is_deterministic: ClassVar[bool] = True
    wrong_options: ClassVar[Sequence[Mapping[str, Any]]] = ({"no_option_of_any_encoder": True},)
    decodes_with: ClassVar[Mapping[str, Any]] = {}

    @pytest.fixture
    def encoder(self) -> Encoder:
        """The encoder."""
        raise NotImplementedError("a contract's subclass has a fixture encoder")

    @pytest.fixture
    def values(self) -> Sequence[Any]:
        """Values that it takes."""
        raise NotImplementedError("a contract's subclass has a fixture values: a list of values that the encoder takes")

    @pytest.fixture
    def refused_values(self) -> Sequence[Any]:
        """Values that it raises an exception for."""
        return []

    def expected(self, value: Any) -> Any:
        """What decoding the bytes of a value gives: by default an equal value."""
        return value

    def compared(self, data: bytes) -> bytes:
        """What of a value's bytes is compared: by default all. A format may hold an identifier, or a date."""
        return data

    def encode(self, encoder: Encoder, value: Any) -> bytes:
        """The bytes of a value."""
        return b"".join(encoder.encode(value))

    def check_same(self, encoder: Encoder, one: bytes, other: bytes, value: Any) -> None:
        """Fail unless both are the bytes of one value."""
        if self.is_deterministic:
            mine, yours = self.compared(one), self.compared(other)
            is_same = mine == yours  # apart, since pytest would compare long ones for minutes
            assert is_same, f"{len(mine)} bytes {mine[:40]!r} and {len(yours)} bytes {yours[:40]!r} are not the same"
        elif _decodes(encoder):
            assert is_equal(self._decode(encoder, one, value), self._decode(encoder, other, value))

    def _decode(self, encoder: Encoder, data: bytes, value: Any) -> Any:
        shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
        known: dict[str, Any] = {"shape": None if shape is None else tuple(shape)}
        if dtype is not None:
            known["dtype"] = str(dtype).removeprefix("torch.")
        decode: Any = getattr(encoder, "decode")  # noqa: B009 - which not every version of it has
        return decode(data, **known, **self.decodes_with)

    # Values and bytes

    def test_it_encodes_what_it_takes(self, encoder: Encoder, values: Sequence[Any]) -> None:
        """Into parts that are plain bytes, one behind the other."""
        assert isinstance(encoder, Encoder)
        assert values, "the fixture values gives at least one"
        encoder.check_options()
        for value in values:
            for part in encoder.encode(value):
                assert isinstance(part, memoryview)
                assert (part.format, part.ndim, part.contiguous) == ("B", 1, True)

    def test_it_does_not_change_what_it_is_given(self, encoder: Encoder, values: Sequence[Any]) -> None:
        """The value belongs to the loop, and may be encoded again."""
        for value in values:
            before = copy.deepcopy(value)
            encoder.encode(value)
            assert is_equal(value, before)

    def test_equal_values_give_equal_bytes(self, encoder: Encoder, values: Sequence[Any]) -> None:
        """The same one again, and a copy of it."""
        for value in values:
            first = self.encode(encoder, value)
            self.check_same(encoder, first, self.encode(encoder, value), value)
            self.check_same(encoder, first, self.encode(encoder, copy.deepcopy(value)), value)

    def test_threads_encode_at_once(self, encoder: Encoder, values: Sequence[Any]) -> None:
        """And get the bytes that one gets alone."""
        expected = [self.encode(encoder, value) for value in values]
        begin = threading.Barrier(4)
        got: list[list[bytes]] = []

        def run() -> None:
            begin.wait()
            got.append([self.encode(encoder, value) for value in values])

        threads = [threading.Thread(target=run) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(got) == 4, "a thread raised an exception"
        for encoded in got:
            for value, one, other in zip(values, expected, encoded, strict=True):
                self.check_same(encoder, one, other, value)

    def test_blocks_give_the_bytes_of_their_tensors(self, encoder: Encoder, values: Sequence[Any]) -> None:
        """Those that `encode_block` does not leave to `encode`, also once it has learned from the first ones."""
        values = [_staged(value) for value in values]
        blocks = [(value, block) for value in values if (block := _block(value)) is not None]
        if not encoder.takes_blocks or not blocks:
            pytest.skip("it takes no blocks" if blocks else "none of the values is a dense tensor")
        encoder.learn(encoder.share({(block.dtype, block.shape): block.memory.nbytes for _, block in blocks}))
        for value, block in blocks:
            before = block.memory.tobytes()
            for _ in range(3):
                parts = encoder.encode_block(block)
                if parts is not None:
                    self.check_same(encoder, b"".join(parts), self.encode(encoder, value), value)
            assert block.memory.tobytes() == before

    def test_containers_of_blocks_give_the_bytes_of_their_tensors(
        self, encoder: Encoder, values: Sequence[Any]
    ) -> None:
        """Where `encode_blocks` does not leave them to `encode`: as a writer hands over what it holds of a value."""
        if not encoder.takes_blocks_in_containers:
            pytest.skip("it takes no blocks in containers")
        pool = StagingPool(1 << 24)
        for value in values:
            staged = pool.stage(pool.plan_sample(value))
            with suppress(LookupError):  # it holds what only `encode` can be given
                parts = encoder.encode_blocks(staged.blocks(0))
                if parts is not None:
                    self.check_same(encoder, b"".join(parts), self.encode(encoder, _staged(value)), value)
        pool.close()

    def test_what_it_prepares_has_the_same_bytes(self, encoder: Encoder, values: Sequence[Any]) -> None:
        """A writer hands over what `prepare` makes of a value, and a call with a path the value itself."""
        if encoder.prepare is None:
            pytest.skip("it prepares nothing")
        for value in values:
            prepared = encoder.prepare(value, is_batch=False)
            self.check_same(encoder, self.encode(encoder, prepared), self.encode(encoder, value), value)

    def test_rows_give_the_bytes_of_each(self, encoder: Encoder, values: Sequence[Any]) -> None:
        """Of tensors, and of arrays, of one dtype and shape, which `encode_rows` does not leave to `encode`."""
        found = [(value, rows) for value in map(_staged, values) if (rows := _rows(value)) is not None]
        if not encoder.takes_rows or not found:
            pytest.skip("it takes no rows" if found else "none of the values is a dense tensor or an array")
        kinds = {(rows.dtype, rows.shape): rows.memory.shape[1] for _, rows in found if rows.is_tensor}
        encoder.learn(encoder.share(kinds))
        for value, rows in found:
            before = rows.memory.tobytes()
            encoded = encoder.encode_rows(rows)
            if encoded is None:
                continue
            around = np.full((len(rows.memory), encoded.nbytes + 20), 7, np.uint8)
            for _ in range(2):
                encoded.fill(around[:, 10:-10])
            for row in around[:, 10:-10]:
                self.check_same(encoder, row.tobytes(), self.encode(encoder, value), value)
            assert rows.memory.tobytes() == before
            assert (around[:, :10] == 7).all() and (around[:, -10:] == 7).all(), "it wrote beside its rows"  # noqa: PT018

    def test_decoding_gives_the_value_back(self, encoder: Encoder, values: Sequence[Any]) -> None:
        """As `expected` has it."""
        if not _decodes(encoder):
            pytest.skip("it has no decoder")
        for value in values:
            decoded = self._decode(encoder, self.encode(encoder, value), value)
            assert is_equal(decoded, self.expected(value)), f"{decoded!r:.500} is not {self.expected(value)!r:.500}"

    # Files, copies, writers

    def test_called_with_a_path_it_writes_a_file(
        self, encoder: Encoder, values: Sequence[Any], tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        """With its suffix, and nothing beside it."""
        folder = tmp_path_factory.mktemp("files")
        for number, value in enumerate(values):
            encoder(folder / f"file-{number}", value)
            data = (folder / f"file-{number}{encoder.suffix}").read_bytes()
            self.check_same(encoder, data, self.encode(encoder, value), value)
        assert len(list(folder.iterdir())) == len(values)

    def test_a_copy_of_it_encodes_alike(self, encoder: Encoder, values: Sequence[Any]) -> None:
        """A copy goes to each helper process."""
        other = loads(dumps(encoder))
        assert isinstance(other, Encoder)
        assert (other.suffix, other.name) == (encoder.suffix, encoder.name)
        for value in values:
            self.check_same(encoder, self.encode(other, value), self.encode(encoder, value), value)

    @pytest.mark.parametrize("backend", ["thread", "process"])
    def test_a_writer_stores_the_same_bytes(
        self, encoder: Encoder, values: Sequence[Any], backend: BackendName, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        """By itself and in a batch, where the value lies in memory that is the writer's."""
        if backend == "process" and not supported():
            pytest.skip("there are no helper processes on this system")
        folder = tmp_path_factory.mktemp("stored")
        with BackgroundWriter(encoder, target=LocalTarget(folder), backend=backend, max_workers=1) as writer:
            for number, value in enumerate(values):
                writer.submit(f"single-{number}", value)
            writer.submit_batch([f"batch-{number}" for number in range(len(values))], list(values))
        for number, value in enumerate(values):
            expected = self.encode(encoder, _staged(value))
            for kind in ("single", "batch"):
                data = (folder / f"{kind}-{number}{encoder.suffix}").read_bytes()
                self.check_same(encoder, data, expected, value)

    # What it refuses

    def test_values_that_it_refuses_are_reported(
        self, encoder: Encoder, values: Sequence[Any], refused_values: Sequence[Any], tmp_path_factory: Any
    ) -> None:
        """By name; what is stored beside them is whole."""
        if not refused_values:
            pytest.skip("the fixture refused_values gives none")
        folder: Path = tmp_path_factory.mktemp("stored")
        for value in refused_values:
            with pytest.raises(Exception):  # noqa: B017, PT011 - whatever it likes
                encoder.encode(value)
        names = [f"refused-{number}" for number in range(len(refused_values))]
        with pytest.raises(WriteError) as raised:
            with BackgroundWriter(encoder, folder, backend="thread", max_workers=1) as writer:
                writer.submit_batch([*names, "fine"], [*refused_values, values[0]])
        assert {failure.name for failure in raised.value.failures} == set(names)
        files = [path for path in folder.iterdir() if not path.name.startswith(".")]
        assert [path.name for path in files] == [f"fine{encoder.suffix}"]
        self.check_same(encoder, files[0].read_bytes(), self.encode(encoder, values[0]), values[0])

    def test_wrong_options_are_refused_when_it_is_made(self, encoder: Encoder) -> None:
        """Not at the first sample, when the loop has run for a while."""
        for options in self.wrong_options:
            with pytest.raises((TypeError, ValueError, LookupError)):
                encoder.with_options(**options)


def _decodes(encoder: Encoder) -> bool:
    return getattr(encoder, "decoder", None) is not None


def _staged(value: Any) -> Any:
    """A value as a writer's copy of it is: a dense tensor's elements lie one behind the other."""
    with suppress(Exception):  # sparse, quantised, nested, and what is no tensor
        import torch

        return value.contiguous() if isinstance(value, torch.Tensor) else value
    return value


def _rows(value: Any) -> Rows | None:
    """The same value three times, as a writer hands a part of a batch to `encode_rows`; None of other values."""
    if (block := _block(value)) is not None:
        return Rows(block.dtype, block.shape, np.tile(block.memory, (3, 1)), True)
    if type(value) is np.ndarray and not value.dtype.hasobject and value.nbytes:
        memory = np.frombuffer(value.tobytes(), np.uint8)
        return Rows(str(value.dtype), value.shape, np.tile(memory, (3, 1)), False)
    return None


def _block(value: Any) -> Block | None:
    """A dense tensor with elements, as a writer hands it to `encode_block`; None for anything else."""
    with suppress(Exception):  # sparse, quantised, nested, and what is no tensor
        import torch

        if isinstance(value, torch.Tensor) and value.numel() and value.layout is torch.strided:
            elements = value.detach().cpu().contiguous()
            memory = np.frombuffer(elements.reshape(-1).view(torch.uint8).numpy().tobytes(), np.uint8)
            return Block(str(value.dtype).removeprefix("torch."), tuple(value.shape), memory)
    return None
