"""Which samples are done: by name where there are names, else by loader and index, series by series."""

import os
import warnings

import pytest
import torch

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from pytorch_lightning import LightningModule, Trainer

from lighter_async import (
    BackgroundWriter,
    DuplicateNameError,
    FileWriter,
    LocalTarget,
    Origin,
    ResumeError,
    Run,
    pending,
    read_manifest,
)
from lighter_async.manifest import Loader

pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning")


class Items(torch.utils.data.Dataset):
    """A data set of texts, which are their own names."""

    def __init__(self, items):
        self.items = list(items)

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        return self.items[index]


class Folder(torch.utils.data.Dataset):
    """A data set that knows where its items are, and no more."""

    def __init__(self, root):
        self.root = root

    def __len__(self):
        return len(os.listdir(self.root))

    def __getitem__(self, index):
        return sorted(os.listdir(self.root))[index]


class Model(LightningModule):
    """Predicts what it is given; of an item that begins with a digit as many samples."""

    def __init__(self, *, several=False):
        super().__init__()
        self.several = several
        self.seen = []

    def predict_step(self, batch, batch_idx, dataloader_idx=0):
        self.seen += batch
        values = [f"{item} {k}" for item in batch for k in range(int(item[0]))] if self.several else list(batch)
        return {"value": values, "name": list(batch)}


def predict(out, *datasets, sampler=None, batch_size=2, several=False, **options):
    """Predict over data sets; returns the files and their texts, and what the model was given."""
    writer = FileWriter(out, "value", "text", backend="thread", **options)
    loaders = [torch.utils.data.DataLoader(one, batch_size=batch_size, sampler=sampler) for one in datasets]
    trainer = Trainer(
        accelerator="cpu", callbacks=[writer], logger=False, enable_progress_bar=False, enable_model_summary=False
    )
    model = Model(several=several)
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", ".*(does not have many workers|already exists|num_workers|LeafSpec|ranks is zero).*"
        )
        trainer.predict(model, loaders[0] if len(loaders) == 1 else loaders, return_predictions=False)
    return files_in(out), model.seen


def files_in(out):
    return {
        path.relative_to(out).as_posix().removesuffix(".txt"): path.read_text()
        for path in out.rglob("*.txt")
        if ".lighter-async" not in path.parts
    }


NAMED = {"name_key": "name", "resume": True}

CHANGES = {
    "grown in the middle": ("ace", "abcde"),
    "grown before": ("bc", "abc"),
    "one replaced": ("abc", "abd"),
    "another order": ("abc", "cab"),
    "shrunk and replaced": ("abcd", "xd"),
    "names that are numbers": ("012", ["0", "00", "1", "2"]),
    "numbers in another order": ("012", "120"),
    "a number replaced": ("012", ["0", "7", "2"]),
}


@pytest.mark.parametrize("how", ["callback", "pending", "names", "function"])
@pytest.mark.parametrize("change", CHANGES)
def test_of_a_data_set_that_has_changed_nothing_is_left_out(tmp_path, change, how):
    """Whatever has become of the indices, each name has its sample, and with the names nothing is computed twice."""
    before, after = (list(items) for items in CHANGES[change])
    out = tmp_path / "out"
    predict(out, Items(before), **NAMED)
    data = Items(after)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "(the data set has changed|.*names, and whether their indices)")
        sampler = {
            "callback": lambda: None,
            "pending": lambda: pending(data, out),
            "names": lambda: pending(data, out, names=after),
            "function": lambda: pending(data, out, names=lambda index: after[index]),
        }[how]()
        files, seen = predict(out, data, sampler=sampler, **NAMED)
    assert files == {name: name for name in {*before, *after}}
    if how in ("names", "function"):
        assert sorted(seen) == sorted(set(after) - set(before))


def test_an_index_under_another_name_is_told_once_with_both_names(tmp_path):
    """By the callback; and `pending` tells what it did not know."""
    predict(tmp_path / "out", Items("ace"), **NAMED)
    data = Items("abcde")
    with pytest.warns(UserWarning, match=r"names=\.\.\."):
        sampler = pending(data, tmp_path / "out")
    with pytest.warns(UserWarning, match=r"'b' now, and what is stored of it is named 'c'") as told:
        predict(tmp_path / "out", data, sampler=sampler, **NAMED)
    assert len([one for one in told if "stored of it" in str(one.message)]) == 1


@pytest.mark.parametrize("kind", ["state", "fingerprint", "tensors", "set", "function"])
def test_of_the_same_data_set_the_index_is_trusted(tmp_path, kind):
    """What was stored of it is not computed again, though it has names."""

    def make():
        data = Items("abcdef")
        if kind == "fingerprint":
            data._fingerprint, data.unlike = "word", object()
        elif kind == "tensors":
            data.of = [torch.arange(5), torch.zeros(2, 2).numpy()]
        elif kind == "set":
            data.of = {"a", "b", "c", 5}
        elif kind == "function":
            data.of = len
        return data

    predict(tmp_path / "out", torch.utils.data.Subset(make(), range(6)), batch_size=6, **NAMED)
    more = torch.utils.data.Subset(make(), range(6))
    assert list(pending(more, tmp_path / "out")) == []
    if kind != "fingerprint":
        other = torch.utils.data.Subset(make(), [5, 4, 3, 2, 1, 0])
        with pytest.warns(UserWarning, match="names="):
            assert list(pending(other, tmp_path / "out")) == list(range(6))


def test_a_data_set_that_looks_into_its_folder_is_not_the_same_once_that_has_changed(tmp_path):
    """Its own state and its length are what they were."""
    root = tmp_path / "in"
    root.mkdir()
    for name in "abc":
        (root / name).touch()
    predict(tmp_path / "out", Folder(str(root)), **NAMED)
    assert list(pending(Folder(str(root)), tmp_path / "out")) == []
    (root / "a").rename(root / "bb")
    with pytest.warns(UserWarning, match="names="):
        assert list(pending(Folder(str(root)), tmp_path / "out")) == [0, 1, 2]


def test_two_items_of_a_name_that_is_stored_are_an_error(tmp_path):
    """One of them was stored, and nobody knows which; without that it is an error, too."""
    predict(tmp_path / "out", Items("ab"), **NAMED)
    with pytest.raises(DuplicateNameError, match=r"'a'.*stored already"):
        predict(tmp_path / "out", Items("aba"), **NAMED)
    with pytest.raises(DuplicateNameError, match="'c'"):
        predict(tmp_path / "out", Items("abcc"), **NAMED)


def test_tasks_that_share_a_directory_add_up(tmp_path):
    """Each with its own part of the data, of one length, and each asks first what is pending."""
    data = Items("abcdef")
    for task in range(3):
        part = torch.utils.data.Subset(data, [2 * task, 2 * task + 1])
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "(the data set has changed|.*names, and whether their indices)")
            predict(tmp_path / "out", part, sampler=pending(part, tmp_path / "out"), **NAMED)
    assert files_in(tmp_path / "out") == {name: name for name in "abcdef"}
    assert list(pending(data, tmp_path / "out", names=list("abcdef"))) == []


# Numbers


@pytest.mark.parametrize("resumes", [False, True], ids=["without resume", "with resume"])
def test_numbers_of_another_data_set_are_refused(tmp_path, resumes):
    """By the callback and by `pending`, with both lengths and the ways out."""
    predict(tmp_path / "out", Items("ace"), resume=resumes)
    for refused in (
        lambda: pending(Items("abcde"), tmp_path / "out"),
        lambda: predict(tmp_path / "out", Items("abcde"), resume=True),
    ):
        with pytest.raises(ResumeError, match=r"had 3 items, and has 5 now.*name_key"):
            refused()
    assert files_in(tmp_path / "out") == {"0": "a", "1": "c", "2": "e"}


def test_a_plain_loop_tells_by_its_config_that_numbers_are_of_another_data_set(tmp_path):
    """It is refused before anything is stored; without, the numbers of the first data set count as stored."""

    def store(items, **options):
        with BackgroundWriter("text", tmp_path, resume=True, backend="thread", **options) as writer:
            for index in pending(items, tmp_path):
                writer.submit(index, items[index], origin=Origin([index]))
        return files_in(tmp_path)

    assert store(Items("ace"), run_config={"items": 3}) == {"0": "a", "1": "c", "2": "e"}
    with pytest.raises(ResumeError, match=r"run_config=\{'items': 3\}, and this run has \{'items': 5\}"):
        store(Items("abcde"), run_config={"items": 5})
    assert files_in(tmp_path) == {"0": "a", "1": "c", "2": "e"}
    assert store(Items("abcde")) == {"0": "a", "1": "c", "2": "e", "3": "d", "4": "e"}


def test_numbers_of_a_data_set_in_another_state_are_warned_of(tmp_path):
    """Of one length, which may be chance."""
    predict(tmp_path / "out", Items("abc"), resume=True)
    with pytest.warns(UserWarning, match="another state") as found:
        assert list(pending(Items("abd"), tmp_path / "out")) == []
    assert found[0].filename == __file__  # where the user's line is
    assert list(pending(Items("abc"), tmp_path / "out")) == []


def test_a_data_set_may_change_before_a_named_sample_is_stored(tmp_path):
    """Nothing is numbered then."""
    with BackgroundWriter("text", tmp_path / "out", backend="thread", run=Run(key="value")) as writer:
        writer._describe([Loader(3, None)], named=True)
    assert list(pending(Items("abcde"), tmp_path / "out")) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("loaders", [1, 2])
def test_an_order_of_ones_own_loses_nothing_when_resumed(tmp_path, loaders):
    """First without resume and then with it: the numbers are the same, so nothing is overwritten or computed."""
    order = [4, 1, 0, 5, 3, 2]
    data = [Items("abcdef"), Items("uvwxyz")][:loaders]
    files, _ = predict(tmp_path / "out", *data, sampler=order)
    expected = {str(number): item for number, item in enumerate("abcdefuvwxyz"[: 6 * loaders])}
    assert files == expected
    before = {path.name: path.stat().st_ino for path in (tmp_path / "out").glob("*.txt")}
    samplers = [pending(one, tmp_path / "out", loader=number) for number, one in enumerate(data)]
    assert [list(one) for one in samplers] == [[]] * loaders
    files, _ = predict(tmp_path / "out", *data, resume=True)
    assert files == expected
    assert {path.name: path.stat().st_ino for path in (tmp_path / "out").glob("*.txt")} == before


def test_numbers_that_are_none_of_an_index_are_told_and_stored_under_it(tmp_path):
    """As an earlier version gave them to samples in an order of the user's own."""
    with BackgroundWriter("text", tmp_path / "out", backend="thread", run=Run(key="value")) as writer:
        writer.submit_batch(["0", "1", "2"], list("cba"), origin=Origin([2, 1, 0]))
    with pytest.warns(UserWarning, match="numbered otherwise.*named '2'"):
        files, _ = predict(tmp_path / "out", Items("abc"), resume=True)
    assert files == {"0": "a", "1": "b", "2": "c"}
    assert list(pending(Items("abc"), tmp_path / "out")) == []


def test_folders_of_loaders_that_an_earlier_version_made_are_understood(tmp_path):
    """They are the samples that they say."""
    with BackgroundWriter("text", tmp_path / "out", backend="thread", run=Run(key="value", numbered=True)) as writer:
        for loader, items in enumerate(("ab", "uv")):
            for index, item in enumerate(items):
                writer.submit(f"{loader}/{index}", item, origin=Origin([index], loader=loader))
    data = [Items("ab"), Items("uv")]
    assert [list(pending(one, tmp_path / "out", loader=number)) for number, one in enumerate(data)] == [[], []]
    files, _ = predict(tmp_path / "out", *data, resume=True)
    assert files == {"0/0": "a", "0/1": "b", "1/0": "u", "1/1": "v"}


@pytest.mark.parametrize("items", ["212131", "112233", "111211"])
@pytest.mark.parametrize("batch_size", [1, 2])
def test_a_model_that_gives_any_number_of_samples_has_a_file_for_each(tmp_path, items, batch_size):
    """Also where some batches have as many samples as items, by chance."""
    data = [f"{count}-{place}" for place, count in enumerate(items)]
    files, _ = predict(tmp_path / "out", Items(data), several=True, batch_size=batch_size)
    assert sorted(files.values()) == sorted(f"{item} {k}" for item in data for k in range(int(item[0])))
    for record in read_manifest(tmp_path / "out").records:
        assert record.index is None or record.name == str(record.index)


def test_keys_of_a_sampler_that_are_no_numbers_are_no_indices(tmp_path):
    """Such a data set is a mapping."""

    class Mapped(Items):
        def __getitem__(self, key):
            return key

    files, _ = predict(tmp_path / "out", Mapped("ab"), sampler=["b", "a"], name_key="name")
    assert files == {"a": "a", "b": "b"}
    assert {record.index for record in read_manifest(tmp_path / "out").records} == {None}


# Resuming tells what it found, and with what it was made


def test_resuming_tells_how_much_is_stored(tmp_path, capsys):
    """Once, with the data set's length."""
    items = [f"item {number}" for number in range(1200)]
    predict(tmp_path / "out", Items(items[:1089]), batch_size=1100, **NAMED)
    capsys.readouterr()
    predict(tmp_path / "out", Items(items), batch_size=1100, **NAMED)
    err = capsys.readouterr().err
    assert err.count("resuming: 1,089 of 1,200 are stored") == 1
    data = Items(items)
    predict(tmp_path / "out", data, sampler=pending(data, tmp_path / "out", names=items), **NAMED)
    assert capsys.readouterr().err.count("resuming: 1,200 of 1,200 are stored") == 1


def test_another_config_is_not_resumed_from(tmp_path):
    """Both are shown; and it can be told to mix them, or to begin anew."""
    first, other = {"checkpoint": "a.ckpt", "version": 1}, {"checkpoint": "b.ckpt", "version": 1}
    predict(tmp_path / "out", Items("abc"), run_config=first, **NAMED)
    predict(tmp_path / "out", Items("abc"), run_config=first, **NAMED)
    with pytest.raises(ResumeError, match=r"a\.ckpt.*b\.ckpt.*mix_configs=True"):
        predict(tmp_path / "out", Items("abc"), run_config=other, **NAMED)
    predict(tmp_path / "out", Items("abcd"), run_config=other, mix_configs=True, **NAMED)
    predict(tmp_path / "out", Items("abc"), run_config=other, name_key="name")
    with pytest.raises(TypeError, match="run_config"):
        FileWriter(tmp_path / "out", "value", "text", run_config={1, 2})


# Several series


def test_a_name_is_done_if_all_series_have_it(tmp_path):
    """As an index is."""
    for writer, names in (("text", "abc"), ("tensor", "bcd")):
        with BackgroundWriter(writer, tmp_path, backend="thread") as background:
            background.submit_batch(list(names), list(names))
    assert read_manifest(tmp_path).names() == {"b", "c"}
    assert list(pending(range(4), tmp_path, names=list("abcd"))) == [0, 3]


class Stream(torch.utils.data.IterableDataset):
    """Items one after the other."""

    def __iter__(self):
        return iter(range(3))


class SizedStream(Stream):
    """The same, with a length that a loader shows."""

    def __len__(self):
        return 3


class Endless(torch.utils.data.Dataset):
    """Items by index, and no length."""

    def __getitem__(self, index):
        return index


@pytest.mark.parametrize(
    "dataset", [Stream(), SizedStream(), Endless(), iter(range(3)), {1, 2}], ids=lambda one: type(one).__name__
)
def test_a_data_set_without_items_by_index_has_no_indices_to_leave_out(tmp_path, dataset):
    """The error says what is missing, and how else stored samples are left out."""
    with pytest.raises(TypeError, match=r"__len__ and __getitem__.*names\(\).*if_exists='skip'.*name_key") as caught:
        pending(dataset, tmp_path)
    assert f"and {type(dataset).__name__} is none" in str(caught.value)


def test_a_loader_is_no_data_set(tmp_path):
    """Its length is that of its batches."""
    with pytest.raises(TypeError, match=r"the data set, not the DataLoader.*loader\.dataset"):
        pending(torch.utils.data.DataLoader(range(8), batch_size=4), tmp_path)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (lambda folder: (folder, range(8)), "takes the data set first, not a PosixPath"),
        (lambda folder: (str(folder), ["a", "b"]), r"takes the data set first, not '/.*'"),
        (lambda folder: (str(folder),), r"takes the data set first, not '/.*'"),
        (lambda folder: (LocalTarget(folder), range(8)), "takes the data set first, not a LocalTarget"),
        (lambda folder: (range(2), ["a", "b"]), "takes paths and targets after the data set, not a list"),
        (lambda folder: (range(2), folder, "{}".format), "takes paths and targets .* not a builtin_function_or_method"),
        (lambda folder: (["a", "b"], torch.ones(2)), r"takes paths .* the data set, not a Tensor of shape \(2,\)"),
    ],
    ids=["path", "text", "alone", "target", "names", "function", "data set"],
)
def test_swapped_arguments_of_pending_are_told_as_such(tmp_path, arguments, told):
    """A directory in the data set's place, and a data set or names in a directory's; a target is a directory."""
    with pytest.raises(TypeError, match=rf"{told}; the order is pending\(dataset, DIR, names=NAMES\)"):
        pending(*arguments(tmp_path))
    assert list(pending(["a", "b"], LocalTarget(tmp_path), names=["a", "b"])) == [0, 1]


def test_a_data_set_may_be_a_path_besides(tmp_path):
    """Only one without items stands in a directory's place."""

    class Images:
        def __fspath__(self):
            return str(tmp_path)

        def __len__(self):
            return 2

        def __getitem__(self, index):
            return index

    assert list(pending(Images(), tmp_path)) == [0, 1]
