"""The parts that exist, each on its own."""

import pytest
import torch
from PIL import Image

from lighter_async.errors import DuplicateNameError, InvalidNameError
from lighter_async.names import Claims, Numbers, check_name
from lighter_async.staging import StagingPool, plan_batch
from lighter_async.targets import LocalTarget
from lighter_async.writers import write_image_2d, write_tensor, write_text


def test_a_row_is_stored_without_the_batch_around_it(tmp_path):
    """The .pt of a row of a batch holds the row alone."""
    batch = torch.rand(8, 1000)
    write_tensor(tmp_path / "case.1", batch[3])
    assert torch.equal(torch.load(tmp_path / "case.1.pt"), batch[3])
    assert (tmp_path / "case.1.pt").stat().st_size < 8000


def test_image_pixels_equal_the_documented_formula(tmp_path):
    """Floats are clamped and scaled."""
    image = torch.rand(3, 7, 5) * 1.4 - 0.2
    write_image_2d(tmp_path / "x", image)
    with Image.open(tmp_path / "x.png") as png:
        stored = torch.tensor(list(png.tobytes()), dtype=torch.uint8).view(7, 5, 3).permute(2, 0, 1)
    assert torch.equal(stored, (image.clamp(0, 1) * 255).to(torch.uint8))


def test_text_is_stored_as_its_string(tmp_path):
    """Any value has a string."""
    write_text(tmp_path / "note", 3.5)
    assert (tmp_path / "note.txt").read_text() == "3.5"


@pytest.mark.parametrize("name", ["", "/a", "../a", "a//b", "a/./b", "a\0b", ".lighter-async/x"])
def test_names_that_leave_the_directory_or_are_ambiguous_are_refused(name):
    """They never become a path."""
    with pytest.raises(InvalidNameError):
        check_name(name)


def test_two_samples_of_one_run_cannot_have_one_file():
    """Numbers, names and names with the suffix all count."""
    claims = Claims()
    claims.claim(Numbers(range(0, 8, 2)), ".png")
    claims.claim(["a"], ".png")
    for names in (["a.png"], ["4"], ["b", "b"]):
        with pytest.raises(DuplicateNameError):
            claims.claim(names, ".png")
    claims.claim(["b"], ".png")


def test_a_staged_batch_does_not_change_with_the_callers_tensor():
    """The caller may overwrite what it handed over."""
    pool = StagingPool(1 << 20)
    batch = torch.rand(4, 3, 5)
    expected = batch.clone()
    staged = pool.stage(plan_batch(batch))
    batch.zero_()
    for index in range(4):
        value = staged.value(index)
        assert torch.equal(value, expected[index])
        assert value.untyped_storage().nbytes() == 60
    pool.release(staged)


def test_the_local_target_stores_whole_files_and_leaves_nothing_else(tmp_path):
    """Folders are made, and the lock goes when the target closes."""
    target = LocalTarget(tmp_path / "out")
    target.open()
    assert target.put("a/b.txt", [memoryview(b"x"), memoryview(b"y")])
    target.close()
    assert [p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*") if p.is_file()] == [
        "a/b.txt"
    ]
    assert (tmp_path / "out/a/b.txt").read_bytes() == b"xy"
