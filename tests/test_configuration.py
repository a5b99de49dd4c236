"""Configurations make the callbacks: LightningCLI's, Hydra's and lighter's, each by its own package."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from harness import DEADLINE, results
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from lightning_models import lightning_warnings, make_trainer
from omegaconf import OmegaConf
from omegaconf.errors import InterpolationKeyError, MissingMandatoryValue
from torch.utils.data import DataLoader

from lighter_async import ArrayWriter, FileWriter, open_results, read_manifest

pytestmark = [
    lightning_warnings,
    pytest.mark.filterwarnings("ignore::jsonargparse._deprecated.JsonargparseDeprecationWarning"),  # of Lightning
]

TESTS = Path(__file__).parent
BOTH = {"mask": "image_2d", "logits": "tensor"}
BOTH_FILES = {f"{number}.{output}" for number in range(4) for output in ("mask.png", "logits.pt")}
TABLE = "index,label\n0,label 0\n1,label 1\n2,label 2\n3,label 3\n"
SHARDS = {"directory": "shards", "shard_bytes": 100_000}


def outputs_of(batch):
    """A mask and logits of four numbers."""
    return {
        "mask": batch.to(torch.uint8).reshape(-1, 1, 1, 1).expand(-1, 1, 2, 2),
        "logits": batch.reshape(-1, 1) * 10.0,
        "label": [f"label {number}" for number in batch.tolist()],
    }


def numbers():
    return DataLoader(torch.arange(4), batch_size=2)


def files_below(folder):
    return {path.relative_to(folder).as_posix() for path in results(Path(folder))}


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


# What a configuration may say, in the words of each package: {class} is a class of ours or of a test's, with arguments.

SAYS = {
    "a name": {"directory": "out", "value_key": "logits", "writer_fn": "tensor"},
    "a module": {
        "directory": "out",
        "value_key": "label",
        "writer_fn": "configured:as_repr",
        "writer_options": {"mark": "> "},
    },
    "a module's class": {
        "directory": "out",
        "value_key": "label",
        "writer_fn": "configured:Lines",
        "writer_options": {"count": 2},
    },
    "an encoder that is made": {
        "directory": "out",
        "value_key": "label",
        "writer_fn": ("configured.Lines", {"count": 2}),
    },
    "several outputs": {"directory": "out", "value_key": BOTH, "writer_options": {"mask": {"compress_level": 0}}},
    "a class among several outputs": {
        "directory": "out",
        "value_key": {"mask": "image_2d", "label": "configured:Lines"},
        "writer_options": {"label": {"count": 2}},
    },
    "shards": {"directory": ("lighter_async.TarShards", SHARDS), "value_key": BOTH},
    "an array": {"directory": ("lighter_async.ArrayTarget", {"path": "a.npy", "rows": [4]}), "value_key": "logits"},
    "a target of one's own": {
        "directory": ("configured.Subfolder", {"above": "out"}),
        "value_key": "label",
        "writer_fn": "text",
    },
    "all options": {
        "directory": "out",
        "value_key": "label",
        "writer_fn": "text",
        "backend": "thread",
        "max_workers": 1,
        "queue_size": 8,
        "queue_bytes": 1 << 20,
        "if_exists": None,
        "durability": "fsync",
        "manifest": True,
        "resume": True,
        "run_config": {"checkpoint": "a.ckpt", "flips": [0, 1]},
        "mix_configs": True,
        "on_error": "continue",
        "attempts": 2,
        "wait_for_space": 1.5,
        "write_timeout": 60,
        "sigterm_grace": None,
        "return_predictions": False,
    },
}


def check_what_was_written(case):
    """The files, and what they hold, of four numbers that were predicted with one of these."""
    if case == "a name":
        assert files_below("out") == {f"{number}.pt" for number in range(4)}
    elif case == "a module":
        assert Path("out/3.repr").read_text() == "> 'label 3'"
    elif case in ("a module's class", "an encoder that is made"):
        assert Path("out/3.lines").read_text() == "label 3\nlabel 3"
    elif case == "several outputs":
        assert files_below("out") == BOTH_FILES
        assert torch.load("out/3.logits.pt").item() == 30
    elif case == "a class among several outputs":
        assert Path("out/3.label.lines").read_text() == "label 3\nlabel 3"
        assert Path("out/3.mask.png").exists()
    elif case == "shards":
        assert {Path(name).suffix for name in files_below("shards")} == {".tar", ".idx", ".json"}
        assert open_results("shards", key="logits")["3"].item() == 30
    elif case == "an array":
        assert np.load("a.npy").tolist() == [[0], [10], [20], [30]]
    elif case == "a target of one's own":
        assert Path("out/inner/3.txt").read_text() == "label 3"
    else:
        assert Path("out/3.txt").read_text() == "label 3"
        (run,) = read_manifest("out").runs
        assert run.config == {"checkpoint": "a.ckpt", "flips": [0, 1]}


# LightningCLI


def of_lightning_cli(value):
    """A callback's arguments, as a configuration of LightningCLI says them."""
    return {
        key: {"class_path": one[0], "init_args": one[1]} if isinstance(one, tuple) else one
        for key, one in value.items()
    }


@pytest.fixture(params=["pytorch_lightning", pytest.param("lightning.pytorch", marks=pytest.mark.long)])
def lightning_cli(request, capfd, monkeypatch):
    """Runs LightningCLI with a configuration of callbacks, and returns what it printed where it has ended early."""
    package = pytest.importorskip(request.param)
    cli = pytest.importorskip(f"{request.param}.cli")

    class Model(package.LightningModule):
        def __init__(self, gain: float = 1.0):
            super().__init__()

        def predict_step(self, batch, batch_idx):
            return outputs_of(batch)

    class Data(package.LightningDataModule):
        def predict_dataloader(self):
            return numbers()

    def run(*callbacks, arguments=(), **trainer):
        quiet = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False, "enable_model_summary": False}
        settings = {"trainer": {**quiet, **trainer, "callbacks": list(callbacks)}, "return_predictions": False}
        Path("job.yaml").write_text(yaml.safe_dump(settings))
        try:
            monkeypatch.setattr(sys, "argv", ["job.py", "predict", "--config", "job.yaml", *arguments])
            return cli.LightningCLI(Model, Data, seed_everything_default=False)
        except SystemExit:
            out, err = capfd.readouterr()
            return out + err

    return run


@pytest.mark.parametrize("case", SAYS)
def test_lightning_cli_makes_the_callback(lightning_cli, case):
    """By class_path and init_args, with targets made likewise."""
    lightning_cli({"class_path": "lighter_async.FileWriter", "init_args": of_lightning_cli(SAYS[case])})
    check_what_was_written(case)


def test_lightning_cli_makes_arrays_and_several_callbacks(lightning_cli):
    """Each writes what it is told to."""
    lightning_cli(
        {"class_path": "lighter_async.ArrayWriter", "init_args": {"path": "a.npy", "value_key": "logits"}},
        {
            "class_path": "lighter_async.FileWriter",
            "init_args": {"directory": "out", "value_key": "mask", "writer_fn": "image_2d"},
        },
    )
    assert np.load("a.npy").tolist() == [[0], [10], [20], [30]]
    assert files_below("out") == {f"{number}.png" for number in range(4)}


@pytest.mark.parametrize("callback", ["TableWriter", "CsvWriter"])
def test_lightning_cli_makes_tables(lightning_cli, callback):
    """Out of a list of keys."""
    arguments = {"path": "t.csv", "keys": ["label"], "durability": "fsync"}
    lightning_cli({"class_path": f"lighter_async.{callback}", "init_args": arguments})
    assert Path("t.csv").read_text() == TABLE


def test_lightning_cli_takes_options_from_its_command_line(lightning_cli):
    """They change what the file says."""
    lightning_cli(
        {"class_path": "lighter_async.FileWriter", "init_args": of_lightning_cli(SAYS["a name"])},
        arguments=["--trainer.callbacks.directory=elsewhere", "--trainer.callbacks.resume=true"],
    )
    assert files_below("elsewhere") == {f"{number}.pt" for number in range(4)}


def test_what_lightning_cli_saves_makes_the_same_callback_again(lightning_cli):
    """With the targets in it, and all options at their values."""
    first = {"class_path": "lighter_async.FileWriter", "init_args": of_lightning_cli(SAYS["shards"])}
    printed = lightning_cli(first, arguments=["--print_config"])
    (callback,) = yaml.safe_load(printed)["trainer"]["callbacks"]
    assert callback["init_args"]["directory"]["init_args"]["shard_bytes"] == 100_000
    lightning_cli(callback)
    check_what_was_written("shards")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"directory": ("lighter_async.TarShard", SHARDS)}, "module 'lighter_async' has no attribute 'TarShard'"),
        ({"directory": ("lighter_async.TarShards", {"directori": "x"})}, "Option 'directori' is not accepted"),
        ({"directory": ("lighter_async.Encoder", SHARDS)}, "lighter_async.Encoder"),
        ({"directory": 5}, "Given value: 5"),
        ({"resum": True}, "Option 'resum' is not accepted"),
        ({"if_exists": "replace"}, "replace"),
        ({"queue_size": "many"}, "many"),
    ],
)
def test_lightning_cli_refuses_what_there_is_not(lightning_cli, changes, message):
    """And nothing is written, also not to a directory whose name is the configuration of a target."""
    arguments = of_lightning_cli({**SAYS["several outputs"], **changes})
    assert message in lightning_cli({"class_path": "lighter_async.FileWriter", "init_args": arguments})
    assert os.listdir() == ["job.yaml"]


WRONG_WRITERS = [
    ({"writer_fn": "tensr"}, "Writer with name 'tensr' is not registered; did you mean 'tensor'?"),
    ({"writer_fn": "configured:as_rep"}, "module 'configured' has no 'as_rep'; did you mean 'as_repr'?"),
    ({"writer_fn": "configurd:as_repr"}, "no module 'configurd' can be imported"),
    ({"writer_fn": "configured.as_repr"}, "did you mean 'configured:as_repr'?"),
    ({"writer_options": {"levl": 1}}, "its options are"),
    ({"value_key": {"mask": "imag_2d"}, "writer_fn": None}, "Writer with name 'imag_2d' is not registered"),
    ({"queue_size": 0}, "queue_size is at least 1"),
]


@pytest.mark.parametrize(("changes", "message"), WRONG_WRITERS)
def test_lightning_cli_shows_what_is_wrong_with_a_writer(lightning_cli, changes, message):
    """Our own words, as without a configuration."""
    with pytest.raises((ValueError, TypeError)) as caught:
        lightning_cli({"class_path": "lighter_async.FileWriter", "init_args": {**SAYS["a name"], **changes}})
    assert message in str(caught.value)
    assert os.listdir() == ["job.yaml"]


@pytest.mark.parametrize("callback", ["FileWriter", "ArrayWriter", "TableWriter", "CsvWriter"])
def test_the_help_of_lightning_cli_says_what_each_argument_means(lightning_cli, callback):
    """With its type and its default, and without a word of another class."""
    printed = lightning_cli(arguments=[f"--trainer.callbacks.help=lighter_async.{callback}"])
    told = " ".join(printed.split())
    for text in ("Where the ", "Samples that may be queued or being written", "default: 8192", "return_predictions"):
        assert text in told
    if callback == "FileWriter":
        assert "lighter_async.TarShards" in " ".join(
            lightning_cli(
                arguments=[
                    "--trainer.callbacks=lighter_async.FileWriter",
                    "--trainer.callbacks.directory.help=lighter_async.TarShards",
                ]
            ).split()
        )


# Hydra


def of_hydra(value, **more):
    """A callback's arguments, as a configuration of Hydra and of lighter says them."""
    return {key: {"_target_": one[0], **one[1]} if isinstance(one, tuple) else one for key, one in value.items()} | more


def predicted(callback):
    pl = pytest.importorskip("pytorch_lightning")

    class Model(pl.LightningModule):
        def predict_step(self, batch, batch_idx):
            return outputs_of(batch)

    make_trainer(pl, callback).predict(Model(), numbers(), return_predictions=False)


@pytest.mark.parametrize("convert", ["none", pytest.param("all", marks=pytest.mark.long)])
@pytest.mark.parametrize("case", SAYS)
def test_hydra_makes_the_callback(case, convert):
    """Out of its own dicts and lists, which need no OmegaConf in helper processes."""
    arguments = of_hydra(SAYS[case], _target_="lighter_async.FileWriter", _convert_=convert)
    callback = instantiate(OmegaConf.create(arguments))
    predicted(callback)
    check_what_was_written(case)


def test_hydra_hands_over_what_its_configuration_refers_to():
    """Also in the middle of a writer's options."""
    config = OmegaConf.create(
        {
            "level": 3,
            "callback": {
                "_target_": "lighter_async.FileWriter",
                "directory": "out",
                "value_key": BOTH,
                "writer_options": {"mask": {"compress_level": "${level}"}},
            },
        }
    )
    callback = instantiate(config.callback)
    assert callback.writer_options == {"mask": {"compress_level": 3}}
    assert type(callback.writer_options["mask"]) is type(callback.value_key) is dict


def test_parts_of_a_configuration_may_lie_in_plain_dicts():
    """As code hands them over that takes them out of one: they become plain, too, and mean the same."""
    config = OmegaConf.create({"scale": [-10, 10], "run": {"flips": [0, 1]}, "matrix": [[2, 0], [0, 1]], "sizes": [1]})
    callback = FileWriter(
        "out",
        {"mask": "image_2d", "volume": "nifti"},
        writer_options={"mask": {"scale": config.scale}, "volume": {"affine": config.matrix}},
        run_config={"run": config.run, "sizes": (config.sizes,)},
    )
    assert callback.writer_options == {"mask": {"scale": [-10, 10]}, "volume": {"affine": [[2, 0], [0, 1]]}}
    assert callback.run_config == {"run": {"flips": [0, 1]}, "sizes": [[1]]}
    assert type(callback.writer_options["mask"]["scale"]) is type(callback.run_config["run"]["flips"]) is list


@pytest.mark.parametrize("convert", ["none", "all"])
@pytest.mark.parametrize("partial", [True, False])
def test_hydra_makes_a_writer_with_options_of_its_own_kinds(partial, convert):
    """By `with_options`, or as a partial of the writer; helper processes need no OmegaConf for them."""
    target = "lighter_async.write_image_2d" + ("" if partial else ".with_options")
    writer = {"_target_": target, "_convert_": convert, "scale": [0, 30]} | ({"_partial_": True} if partial else {})
    arguments = {"_target_": "lighter_async.FileWriter", "directory": "out", "value_key": "image", "writer_fn": writer}
    callback = instantiate(OmegaConf.create(arguments))
    pl = pytest.importorskip("pytorch_lightning")

    class Model(pl.LightningModule):
        def predict_step(self, batch, batch_idx):
            return {"image": batch.reshape(-1, 1, 1, 1) * 10.0}

    make_trainer(pl, callback).predict(Model(), numbers(), return_predictions=False)
    assert open_results("out")["3"].tolist() == [[[255]]]
    assert open_results("out")["0"].tolist() == [[[0]]]
    (run,) = read_manifest("out").runs
    assert run.options == {"scale": [0, 30]}


@pytest.mark.parametrize("option", ["run_config", "writer_options"])
def test_a_value_that_a_configuration_leaves_open_is_no_text(option):
    """It is an error by its place, and not recorded as question marks."""
    config = OmegaConf.create({"of": {"checkpoint": "???"}})
    with pytest.raises(MissingMandatoryValue, match=r"of\.checkpoint|checkpoint"):
        FileWriter("out", "logits", "tensor", **{option: config})
    with pytest.raises(InterpolationKeyError, match="nowhere"):
        FileWriter("out", "logits", "tensor", **{option: {"of": OmegaConf.create({"checkpoint": "${nowhere}"})}})


def test_hydra_makes_an_array_writer():
    """And what is stored are its rows."""
    predicted(instantiate({"_target_": "lighter_async.ArrayWriter", "path": "a.npy", "value_key": "logits"}))
    assert np.load("a.npy").tolist() == [[0], [10], [20], [30]]


@pytest.mark.parametrize("convert", ["none", "all"])
@pytest.mark.parametrize("callback", ["TableWriter", "CsvWriter"])
def test_hydra_makes_tables(callback, convert):
    """Out of its own list of keys."""
    arguments = {"_target_": f"lighter_async.{callback}", "path": "t.csv", "keys": ["label"], "_convert_": convert}
    predicted(instantiate(OmegaConf.create(arguments)))
    assert Path("t.csv").read_text() == TABLE


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        *WRONG_WRITERS,
        ({"directory": ("lighter_async.TarShard", SHARDS)}, "lighter_async.TarShard"),
        ({"directory": ("lighter_async.TarShards", {"directori": "x"})}, "unexpected keyword argument 'directori'"),
        ({"directory": {"folder": "x"}}, "directory is a path or a target, not DictConfig"),
        ({"resum": True}, "did you mean 'resume'?"),
    ],
)
def test_hydra_refuses_what_there_is_not(changes, message):
    """With our own words, and nothing is written."""
    arguments = of_hydra({**SAYS["a name"], **changes}, _target_="lighter_async.FileWriter")
    with pytest.raises(InstantiationException) as caught:
        instantiate(OmegaConf.create(arguments))
    assert message.replace("'", "") in str(caught.value).replace("\\'", "").replace("'", "")
    assert os.listdir() == []


# lighter

PROJECT = """
    import sys
    sys.path.insert(0, {tests!r})
    import pytorch_lightning as pl
    import torch
    from torch.utils.data import DataLoader


    class Model(pl.LightningModule):
        def predict_step(self, batch, batch_idx):
            return {{
                "mask": batch.to(torch.uint8).reshape(-1, 1, 1, 1).expand(-1, 1, 2, 2),
                "logits": batch.reshape(-1, 1) * 10.0,
                "label": [f"label {{number}}" for number in batch.tolist()],
            }}


    class Data(pl.LightningDataModule):
        def predict_dataloader(self):
            return DataLoader(torch.arange(4), batch_size=2)
"""


@pytest.fixture
def lighter():
    """Runs lighter's command with callbacks, and returns how it has ended and what it has printed."""
    Path("__lighter__.py").touch()
    Path("__init__.py").touch()
    Path("parts.py").write_text(textwrap.dedent(PROJECT.format(tests=str(TESTS))))

    def run(*callbacks):
        settings = {
            "model": {"_target_": "project.parts.Model"},
            "data": {"_target_": "project.parts.Data"},
            "trainer": {
                "_target_": "pytorch_lightning.Trainer",
                "accelerator": "cpu",
                "logger": False,
                "enable_progress_bar": False,
                "callbacks": list(callbacks),
            },
        }
        Path("job.yaml").write_text(yaml.safe_dump(settings))
        command = [sys.executable, "-c", "from lighter.engine.runner import cli; cli()", "predict", "job.yaml"]
        surroundings = {**os.environ, "COLUMNS": "200"}
        done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, env=surroundings)
        return done.returncode, done.stdout + done.stderr

    return run


@pytest.mark.long
def test_lighter_makes_the_callbacks(lighter):
    """By _target_, with targets made likewise, and writers of one's own in helper processes."""
    cases = ["several outputs", "a target of one's own", "shards", "an array"]
    arguments = [SAYS[case] for case in cases]
    arguments[1] = {**arguments[1], "writer_fn": "configured:Lines", "writer_options": {"count": 2}}
    status, printed = lighter(*(of_hydra(one, _target_="lighter_async.FileWriter") for one in arguments))
    assert status == 0, printed
    assert Path("out/inner/3.lines").read_text() == "label 3\nlabel 3"
    assert files_below("out") == BOTH_FILES | {f"inner/{number}.lines" for number in range(4)}
    check_what_was_written("shards")
    check_what_was_written("an array")


@pytest.mark.long
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"writer_fn": "tensr"}, "Writer with name 'tensr' is not registered"),
        ({"directory": ("lighter_async.TarShard", SHARDS)}, "Did you mean 'lighter_async.TarShards'?"),
    ],
)
def test_lighter_shows_what_is_wrong(lighter, changes, message):
    """The name, and the one that was meant or those that there are."""
    status, printed = lighter(of_hydra({**SAYS["a name"], **changes}, _target_="lighter_async.FileWriter"))
    assert status != 0
    assert " ".join(message.split()) in " ".join(printed.split())
    assert not Path("out").exists()


# The same classes without a configuration


@pytest.mark.parametrize("make", [FileWriter, ArrayWriter])
def test_a_path_of_any_kind_is_taken(make, tmp_path):
    """Also one that is no `Path`, which the annotation that configurations read does not name."""

    class Place(os.PathLike):
        def __fspath__(self):
            return str(tmp_path / "a.npy")

    given = (Place(), "logits", "tensor") if make is FileWriter else (Place(), "logits")
    assert make(*given).path in (tmp_path / "a.npy", tmp_path)
