"""Predicts on several ranks that talk over gloo; run by `test_ranks`.

    python ranks_script.py FOLDER STRATEGY RANKS SCENARIO...

The scenarios run one after the other in the same processes, each below `FOLDER/SCENARIO`. There each rank leaves
`computed-R.txt`, a line per item that its model was given, and `rank-R.json` with what became of each prediction.
"""

import dataclasses
import functools
import json
import os
import secrets
import sys
import threading
import warnings
from pathlib import Path

import torch
from torch.utils.data import DataLoader, DistributedSampler

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from pytorch_lightning import Callback, LightningModule, Trainer
    from pytorch_lightning.callbacks import ModelCheckpoint  # noqa: F401  (loaded here, and not between two scenarios)

from lighter_async import BackgroundWriter, FileWriter, Origin, PendingSampler, Run, pending
from lighter_async.callback import base_writer
from lighter_async.manifest.verify import drop, verify

SAMPLES = 37  # odd, so that the ranks have different numbers of them
CASES = 21  # likewise

COLLECTIVES = [
    "all_gather",
    "all_gather_object",
    "all_reduce",
    "all_to_all",
    "barrier",
    "broadcast",
    "broadcast_object_list",
    "gather",
    "gather_object",
    "monitored_barrier",
    "recv",
    "reduce",
    "scatter",
    "send",
]

calls: list[str] = []  # collective calls made by our package, as "HOOK: CALL"


def count_collectives():
    """Note each collective call that has a frame of our package below it, with the hook in which it was made."""

    def counted(name, function):
        @functools.wraps(function)
        def call(*args, **kwargs):
            frame, hook = sys._getframe(1), None
            while frame is not None:
                if frame.f_globals.get("__name__", "").startswith("lighter_async"):
                    hook = frame.f_code.co_name
                frame = frame.f_back
            if hook is not None:
                calls.append(f"{hook}: {name}")
            return function(*args, **kwargs)

        return call

    for name in COLLECTIVES:
        function = getattr(torch.distributed, name)
        for module in list(sys.modules.values()):
            if getattr(module, "__dict__", {}).get(name) is function:
                setattr(module, name, counted(name, function))


class Model(LightningModule):
    """Predicts which sample it was given; a batch has indices of the data set, plus `of_loader` for each loader."""

    of_loader = 1000

    def __init__(self, folder):
        super().__init__()
        self.folder = folder
        torch.manual_seed(1)
        self.layer = torch.nn.Linear(3, 16)

    def predict_step(self, batch, batch_idx, dataloader_idx=0):
        numbers = [number % self.of_loader for number in batch.tolist()]
        self.note(f"{dataloader_idx} {number}" for number in numbers)
        return self.outputs(numbers, batch, dataloader_idx)

    def note(self, lines):
        with open(self.folder / f"computed-{self.global_rank}.txt", "a") as file:
            file.writelines(f"{line}\n" for line in lines)

    def outputs(self, numbers, batch, loader):
        values = torch.stack([batch, batch**2, batch**3], 1).float() / 1000
        # Of a batch as a whole, so that it shows beside which others a sample was computed.
        features = self.layer(values) - self.layer(values).mean()
        return {
            "sample": [f"{number} of loader {loader}" for number in numbers],
            "tensor": batch,
            "features": features.detach(),
            "rank": [f"{number} by rank {self.global_rank}" for number in numbers],
            "case": [f"loader-{loader}/case.{number}" for number in numbers],
            "same": [f"same.{number // 2}" for number in numbers],
        }


class Crops(Model):
    """Predicts two samples for each item."""

    def outputs(self, numbers, batch, loader):
        return {"sample": [f"{number} {side}" for number in numbers for side in "lr"]}


class Raises(Model):
    """Raises on one rank, while the other one waits for it."""

    def __init__(self, folder, rank):
        super().__init__(folder)
        self.failing = rank

    def predict_step(self, batch, batch_idx, dataloader_idx=0):
        if batch_idx == 2:
            if self.global_rank == self.failing:
                raise ValueError("no prediction from here")
            torch.distributed.barrier()
        return super().predict_step(batch, batch_idx, dataloader_idx)


class Endless(Model):
    """Goes on until it is told to end, at a pace that leaves time to tell it."""

    of_loader = 1 << 40
    pace = threading.Event()

    def predict_step(self, batch, batch_idx, dataloader_idx=0):
        self.pace.wait(0.005)
        if batch_idx == 5:
            (self.folder / f"process-{self.global_rank}").write_text(str(os.getpid()))
        return super().predict_step(batch, batch_idx, dataloader_idx)


class Chunks(DistributedSampler):
    """Gives each rank items that lie together, and so pads the last rank alone."""

    def __iter__(self):
        own = range(self.rank * self.num_samples, (self.rank + 1) * self.num_samples)
        return iter([index % len(self.dataset) for index in own])


class Report(Callback):
    """Writes down what became of this rank's samples, in whichever process it runs."""

    def __init__(self, folder):
        self.folder = folder

    def on_exception(self, trainer, pl_module, exception):
        self.add(trainer, f"{type(exception).__name__}: {exception}")

    def teardown(self, trainer, pl_module, stage):
        self.add(trainer, None)

    def add(self, trainer, error):
        file = self.folder / f"rank-{trainer.global_rank}.json"
        report = json.loads(file.read_text()) if file.exists() else []
        stats = []
        for writer in trainer.callbacks:
            if isinstance(writer, FileWriter) and (writer._writer is not None or writer._stats is not None):
                stats.append(dataclasses.asdict(writer.stats()))
        report.append({"error": error, "stats": stats, "ranks": trainer.world_size, "calls": list(calls)})
        calls.clear()
        file.write_text(json.dumps(report))


class Ranks:
    """One set of ranks, and what they predict in each scenario.

    Args:
        folder: The scenario's.
        strategy: Lightning's.
        ranks: How many.
    """

    def __init__(self, folder, strategy, ranks):
        self.folder = folder
        self.strategy = strategy
        self.ranks = ranks

    def predict(self, loaders, *writers, model=None, **options):
        quiet = {
            "accelerator": "cpu",
            "logger": False,
            "enable_checkpointing": False,
            "enable_model_summary": False,
            "enable_progress_bar": False,
        }
        trainer = Trainer(
            strategy=self.strategy,
            devices=self.ranks,
            callbacks=[*writers, Report(self.folder)],
            **quiet,
            **options,
        )
        trainer.predict(model or Model(self.folder), loaders, return_predictions=False)

    def predict_and_go_on(self, *args, **options):
        """As `predict`; what it raises is in the report."""
        try:
            self.predict(*args, **options)
        except Exception as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr)

    def loader(self, count=SAMPLES, *directories, batch_size=4, first=0, **options):
        """A loader of `count` items, without those that are stored in all of `directories`."""
        items = torch.arange(first, first + count)
        sampler = pending(items, *directories, **options) if directories else None
        return DataLoader(items, batch_size=batch_size, sampler=sampler)

    def wait_for_each_other(self):
        """Between two predictions of one script, or one rank asks what is pending while another still stores."""
        if torch.distributed.is_initialized():
            torch.distributed.barrier()

    # Scenarios

    def series(self):
        """Two series of numbered samples in one directory, and one of named ones in another."""
        numbers, names = self.folder / "numbers", self.folder / "names"
        return [
            FileWriter(numbers, "sample", "text", resume=True),
            FileWriter(numbers, "tensor", "tensor", resume=True),
            FileWriter(names, "sample", "text", "case", resume=True),
        ]

    def pending_series(self, batch_size):
        return self.loader(SAMPLES, self.folder / "numbers", self.folder / "names", batch_size=batch_size)

    def cut(self):
        """A run that ends early."""
        self.predict(self.pending_series(4), *self.series(), limit_predict_batches=2)

    def resumed(self):
        """Goes on with what is there, in batches of another size."""
        self.predict(self.pending_series(3), *self.series())

    def twice(self):
        """Goes on, and once more when there is nothing left."""
        self.predict(self.pending_series(5), *self.series())
        self.wait_for_each_other()
        self.predict(self.pending_series(5), *self.series())

    def one_left(self):
        """A data set of which a single sample was left out."""
        cases = torch.arange(CASES)
        first = DataLoader(cases, batch_size=4, sampler=PendingSampler(cases, list(range(CASES - 1))))
        self.predict(first, FileWriter(self.folder / "out", "sample", "text", resume=True))
        self.wait_for_each_other()
        writer = FileWriter(self.folder / "out", "sample", "text", resume=True)
        self.predict(self.loader(CASES, self.folder / "out"), writer)

    def few(self):
        """Fewer samples than ranks."""
        self.predict(
            self.loader(3, self.folder / "out"), FileWriter(self.folder / "out", "sample", "text", resume=True)
        )

    def loaders(self):
        """Several loaders of one run, cut and resumed."""
        for batch_size, limit in ((4, 1), (5, None)):
            self.wait_for_each_other()
            several = [
                self.loader(count, self.folder / "out", batch_size=batch_size, loader=number, first=1000 * number)
                for number, count in enumerate((9, 7, 12))
            ]
            writer = FileWriter(self.folder / "out", "sample", "text", resume=True)
            self.predict(several, writer, limit_predict_batches=limit)

    def padded(self):
        """A sampler that gives all ranks the same number of items."""
        ways = {
            "numbers": {},
            "names": {"name_key": "case"},
            "resume": {"resume": True},
            "resumed-names": {"resume": True, "name_key": "case"},
        }
        self.predict(
            self.padding(DistributedSampler),
            *(FileWriter(self.folder / name, "sample", "text", **way) for name, way in ways.items()),
        )

    def padded_crops(self):
        """The same, and a model that predicts two samples for each item."""
        self.predict(
            self.padding(DistributedSampler),
            FileWriter(self.folder / "out", "sample", "text"),
            model=Crops(self.folder),
        )

    def padded_chunks(self):
        """A sampler that pads in a way of its own."""
        self.predict(self.padding(Chunks), FileWriter(self.folder / "out", "sample", "text", "case"))

    def padding(self, kind):
        items = torch.arange(CASES)
        # Before the ranks are there to be asked.
        rank = int(os.environ.get("LOCAL_RANK", "0"))
        return DataLoader(items, batch_size=4, sampler=kind(items, self.ranks, rank, shuffle=False))

    def nested(self):
        """Loaders in a collection of collections."""
        loaders = {"a": [self.loader(5), self.loader(6, first=1000)], "b": self.loader(7, first=2000)}
        self.predict(loaders, FileWriter(self.folder / "out", "sample", "text", resume=True))

    def everywhere(self):
        """Every rank computes everything."""
        ways = {
            "names": {"name_key": "case"},
            "synced": {"name_key": "case", "durability": "fsync"},
            "resume": {"resume": True},
        }
        self.predict(
            self.loader(),
            *(FileWriter(self.folder / name, "sample", "text", **way) for name, way in ways.items()),
            use_distributed_sampler=False,
        )

    def collide(self):
        """Two ranks give different samples one name, twice each."""
        for _ in range(2):
            for if_exists in ("overwrite", "skip", "error"):
                writer = FileWriter(self.folder / if_exists, "rank", "text", "same", if_exists=if_exists)
                self.predict_and_go_on(self.loader(2, batch_size=1), writer)

    def unshared(self):
        """Ranks that do not see the same directory."""
        here = os.getcwd()
        own = self.folder / f"view-of-rank-{os.environ.get('LOCAL_RANK', '0')}"
        own.mkdir()
        os.chdir(own)
        base_writer._SECONDS_TO_SEE = 1.0
        self.predict_and_go_on(self.loader(), FileWriter("results", "sample", "text"))
        os.chdir(here)

    def in_the_way(self):
        """There is a file where the directory should be."""
        self.folder.joinpath("taken").touch()
        self.predict_and_go_on(self.loader(), FileWriter(self.folder / "taken", "sample", "text"))

    def bytes_cut(self):
        """A run without disturbance, and one that was cut and then lost two files, resumed in its own batches."""
        whole, cut = self.folder / "whole", self.folder / "cut"
        self.predict(self.loader(), FileWriter(whole, "features", "tensor", resume=True))
        self.predict(self.loader(), FileWriter(cut, "features", "tensor", resume=True), limit_predict_batches=3)
        self.wait_for_each_other()
        if os.environ.get("LOCAL_RANK", "0") == "0":
            for number in (1, 6):
                (cut / f"{number}.pt").unlink()
            drop(verify(cut))
        self.wait_for_each_other()
        loader = DataLoader(
            torch.arange(SAMPLES), batch_size=4, sampler=pending(torch.arange(SAMPLES), cut, batch_size=4)
        )
        self.predict(loader, FileWriter(cut, "features", "tensor", resume=True))

    def sharded(self):
        """A model whose parameters are spread over the ranks, without Lightning."""
        from torch.distributed.fsdp import fully_shard

        if not torch.distributed.is_initialized():
            torch.distributed.init_process_group("gloo")
        mesh = torch.distributed.device_mesh.init_device_mesh("cpu", (self.ranks,))
        rank = torch.distributed.get_rank()
        plain, model = Model(self.folder).layer, Model(self.folder).layer
        model.load_state_dict(plain.state_dict())
        fully_shard(model, mesh=mesh)
        identity = [secrets.token_hex(4)]
        torch.distributed.broadcast_object_list(identity)
        run = Run(id=identity[0], rank=rank, world_size=self.ranks)
        items = torch.arange(CASES)
        sampler = DistributedSampler(items, self.ranks, rank, shuffle=False)
        calls.clear()
        with BackgroundWriter("tensor", self.folder / "out", run=run) as writer, torch.no_grad():
            for batch in DataLoader(items, batch_size=4, sampler=sampler):
                values = torch.stack([batch, batch, batch], 1).float()
                # Every rank computes each batch, since the parameters are gathered for it.
                writer.submit_batch([f"{i}" for i in batch.tolist()], model(values), origin=Origin(batch.tolist()))
                expected = plain(values)
                assert all(torch.equal(row, other) for row, other in zip(model(values), expected, strict=True))
        report = {"stats": dataclasses.asdict(writer.stats()), "calls": calls}
        (self.folder / f"rank-{rank}.json").write_text(json.dumps(report))
        if rank == 0:
            torch.save(plain.state_dict(), self.folder / "plain.pt")

    def model_fails(self):
        """The model raises on rank 1."""
        self.predict(
            self.loader(), FileWriter(self.folder / "out", "sample", "text"), model=Raises(self.folder, self.ranks - 1)
        )

    def writer_fails(self):
        """The writer raises on rank 0, while the other rank goes on and on."""

        def write(path, value):
            if value.endswith("8 by rank 0"):
                raise ValueError("no way to write here")
            path.write_text(value)

        self.predict(
            self.loader(10_000_000, batch_size=2),
            FileWriter(self.folder / "out", "rank", write, "case"),
            model=Endless(self.folder),
        )

    def endless(self):
        """Runs until it is ended."""
        self.predict(
            self.loader(10_000_000),
            FileWriter(self.folder / "out", "sample", "text", resume=True),
            FileWriter(self.folder / "names", "tensor", "tensor", "case"),
            model=Endless(self.folder),
        )


def main(folder, strategy, ranks, *scenarios):
    count_collectives()
    warnings.filterwarnings("ignore", ".*already exists, existing predictions.*")
    for scenario in scenarios:
        inner = Path(folder, scenario)
        inner.mkdir(exist_ok=True)
        getattr(Ranks(inner, strategy, int(ranks)), scenario)()


if __name__ == "__main__":
    main(*sys.argv[1:])
