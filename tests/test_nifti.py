"""NIfTI files: the bytes of nibabel and MONAI, affines on their way to a helper, and files from anybody."""

import gzip
import subprocess
import sys
import textwrap
import warnings

import nibabel
import numpy as np
import psutil
import pytest
import pytorch_lightning
import torch
from lightning_models import lightning_warnings, predict

from lighter_async import (
    ArrayTarget,
    BackgroundWriter,
    FileWriter,
    LocalTarget,
    Origin,
    ReadError,
    TarShards,
    WriteError,
    open_results,
    writer_registry,
)
from lighter_async.cli import main
from lighter_async.testing.equality import is_equal
from lighter_async.writers.nifti import decode_nifti, write_nifti
from lighter_async.writers.nifti_header import header

pytestmark = pytest.mark.usefixtures("one_core")

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from monai.data import MetaTensor, NibabelWriter, list_data_collate
    from monai.transforms import LoadImage, SaveImage
    from monai.utils import SpaceKeys

UNCOMPRESSED = write_nifti.with_options(suffix=".nii")


def affine_of(seed, *, flipped=False):
    """A rotation with voxel sizes and an offset."""
    rng = np.random.default_rng(seed)
    rotation, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    affine = np.eye(4)
    affine[:3, :3] = rotation @ np.diag(rng.uniform(0.3, 3, 3)) * (-1 if flipped else 1)
    affine[:3, 3] = rng.normal(size=3) * 100
    return affine


def noise(*shape, dtype=torch.float32):
    return (torch.rand(shape, generator=torch.Generator().manual_seed(1)) * 100).to(dtype)


def encoded(value, encoder=UNCOMPRESSED):
    return b"".join(encoder.encode(value))


def read(path):
    """The voxels and the affine, as nibabel reads them."""
    image = nibabel.load(path)
    return np.asanyarray(image.dataobj), image.affine


# The bytes


@pytest.mark.parametrize("seed", range(20))
def test_a_header_is_that_of_nibabel(seed):
    """Byte for byte, for any rotation, voxel sizes, and handedness."""
    affine = affine_of(seed, flipped=bool(seed % 2))
    for shape, dtype in (((4, 5, 6), "f4"), ((4, 5), "u1"), ((3, 4, 5, 2), "i2"), ((2, 3, 2, 1, 2, 1, 2), "c16")):
        image = nibabel.Nifti1Image(np.zeros(shape, dtype), affine)
        image.set_sform(affine, code=1)
        image.set_qform(affine, code=1)
        assert header(np.dtype(dtype), shape, affine) == image.to_bytes()[:352]


def test_an_affine_with_shears_has_no_rotation_that_claims_to_be_all():
    """A reader that prefers the quaternion would put the voxels elsewhere."""
    affine = np.eye(4)
    affine[0, 1] = 0.5
    image = nibabel.Nifti1Image.from_bytes(encoded({"image": noise(1, 3, 4, 5), "affine": affine}))
    assert (int(image.header["qform_code"]), int(image.header["sform_code"])) == (0, 1)
    np.testing.assert_array_equal(image.affine, affine)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.float32], ids=str)
@pytest.mark.parametrize(
    "shape", [(1, 4, 5, 6), (2, 4, 5, 6), (3, 4, 5), (1, 4, 5), (1, 4, 5, 1), (2, 4, 5, 1)], ids=str
)
def test_a_file_is_that_of_monai(tmp_path, shape, dtype):
    """Byte for byte, where both are uncompressed; compressed, it is the same inside."""
    value, affine = noise(*shape, dtype=dtype), affine_of(3)
    writer = NibabelWriter(output_dtype=value.numpy().dtype)
    writer.set_data_array(value, channel_dim=0)
    writer.affine = affine  # not by set_metadata, which resamples
    writer.write(tmp_path / "theirs.nii")
    theirs = (tmp_path / "theirs.nii").read_bytes()
    assert encoded(MetaTensor(value, affine=affine)) == theirs
    assert encoded({"image": value.numpy(), "affine": affine}) == theirs
    assert gzip.decompress(encoded(MetaTensor(value, affine=affine), write_nifti)) == theirs


def test_save_image_of_monai_gives_the_same_voxels_and_affine(tmp_path):
    """The transform that a pipeline ends with, unless it resamples; and the one that it begins with reads ours."""
    value = MetaTensor(noise(2, 5, 6, 7), affine=torch.from_numpy(affine_of(5)))
    save = SaveImage(tmp_path, output_postfix="", separate_folder=False, resample=False, print_log=False)
    save(MetaTensor(value, meta={**value.meta, "filename_or_obj": "theirs.nii.gz"}))
    write_nifti(tmp_path / "ours", value)
    ours, theirs = read(tmp_path / "ours.nii.gz"), read(tmp_path / "theirs.nii.gz")
    np.testing.assert_array_equal(ours[0], theirs[0])
    np.testing.assert_allclose(ours[1], theirs[1], atol=1e-4)
    loaded = LoadImage(ensure_channel_first=True)(tmp_path / "ours.nii.gz")
    assert torch.equal(loaded.as_tensor(), value.as_tensor())
    np.testing.assert_allclose(loaded.affine, affine_of(5), atol=1e-4)


def test_values_may_have_no_channels_or_have_them_elsewhere():
    """By an option; x is the first of the other axes."""
    value, none, last = (
        noise(3, 4, 5),
        UNCOMPRESSED.with_options(channel_dim=None),
        UNCOMPRESSED.with_options(channel_dim=-1),
    )
    assert encoded(value, none) == encoded(value[None])
    assert encoded(noise(3, 4, 5, 2), last) == encoded(noise(3, 4, 5, 2).movedim(-1, 0))
    np.testing.assert_array_equal(decode_nifti(encoded(value, none), channel_dim=None)["image"], value)
    found = decode_nifti(encoded(noise(3, 4, 5, 2), last), channel_dim=-1)["image"]
    np.testing.assert_array_equal(found, noise(3, 4, 5, 2))


@pytest.mark.parametrize(
    ("shape", "channel_dim"),
    [
        *(((3, 4, 5), None), ((3, 3, 3), None), ((4, 5), None), ((3, 4, 5, 2), -1), ((3, 4, 2), -1), ((3, 4, 5, 1), 3)),
        *(((3, 2, 4, 5), 1), ((2, 3, 4, 5), 0), ((3, 3, 3, 3), 0), ((4, 5, 6, 3), None), ((3, 1, 4, 5), 1)),
    ],
)
def test_results_have_the_shape_of_the_value_wherever_its_channels_are(tmp_path, shape, channel_dim):
    """Options are not recorded, but the shape is."""
    value = noise(*shape)
    with BackgroundWriter("nifti", tmp_path, writer_options={"channel_dim": channel_dim}) as writer:
        writer.submit("a", value)
    np.testing.assert_array_equal(open_results(tmp_path)["a"]["image"], value)


def test_a_shape_that_leaves_the_axis_of_the_channels_open_is_an_error_with_the_way_out(tmp_path):
    """Where as many rows as slices would go with one axis and with another."""
    value = noise(3, 4, 4, 4)
    with BackgroundWriter("nifti", tmp_path, writer_options={"channel_dim": -1}) as writer:
        writer.submit("a", value)
    np.testing.assert_array_equal(open_results(tmp_path)["a"]["image"], value)  # the axis is recorded
    with pytest.raises(
        ReadError, match=r"one axis or on another; decode=write_nifti\.with_options\(channel_dim=AXIS\)"
    ):
        open_results(tmp_path, decode=write_nifti)["a"]
    results = open_results(tmp_path, decode=write_nifti.with_options(channel_dim=-1))
    np.testing.assert_array_equal(results["a"]["image"], value)


def test_axes_in_the_order_of_the_file_are_taken_as_they_are():
    """As a device turns them when it copies to the host; what lies on the host is turned by a worker."""
    value = noise(2, 3, 4, 5)
    turned = {"image": value.permute(3, 2, 1, 0).contiguous(), "order": "F"}
    assert encoded(turned) == encoded(value)
    far = torch.empty(2, 3, 4, 5, device="meta")
    batch = MetaTensor(torch.empty(2, 3, 4, 5, 6, device="meta"), affine=torch.eye(4))
    for one in (write_nifti.prepare(far, is_batch=False), *write_nifti.prepare(torch.stack([far, far]), is_batch=True)):
        assert (one["image"].shape, one["affine"], one["order"]) == ((5, 4, 3, 2), None, "F")
    for one in write_nifti.prepare(batch, is_batch=True):
        assert (type(one["image"]), one["image"].shape, one["order"]) == (torch.Tensor, (6, 5, 4, 3), "F")
        assert torch.equal(one["affine"], torch.eye(4, dtype=torch.float64))
    assert write_nifti.prepare(value, is_batch=True) is value


@pytest.mark.parametrize("affine", [np.diag([2.0, 3, 4, 1]).tolist(), torch.diag(torch.tensor([2.0, 3, 4, 1]))])
def test_an_affine_may_be_an_option(tmp_path, affine):
    """Of all values that have none of their own."""
    with BackgroundWriter("nifti", tmp_path, writer_options={"affine": affine, "suffix": ".nii"}) as writer:
        writer.submit("plain", noise(1, 3, 4, 5))
        writer.submit("own", {"image": noise(1, 3, 4, 5), "affine": affine_of(1)})
        writer.submit("none", {"image": noise(1, 3, 4, 5), "affine": None})
    np.testing.assert_array_equal(read(tmp_path / "plain.nii")[1], np.diag([2.0, 3, 4, 1]))
    np.testing.assert_array_equal(read(tmp_path / "none.nii")[1], np.diag([2.0, 3, 4, 1]))
    np.testing.assert_allclose(read(tmp_path / "own.nii")[1], affine_of(1), atol=1e-4)


def test_an_affine_of_two_dimensions_is_one_of_the_plane():
    """As MONAI has it for images."""
    affine = np.array([[2.0, 0, 5], [0, 3, 6], [0, 0, 1]])
    expected = [[2, 0, 0, 5], [0, 3, 0, 6], [0, 0, 1, 0], [0, 0, 0, 1]]
    assert decode_nifti(encoded({"image": noise(1, 3, 4), "affine": affine}))["affine"].tolist() == expected


@pytest.mark.parametrize(
    ("affine", "text"),
    [
        (torch.eye(4).repeat(2, 1, 1), "an affine is a matrix .*; a batch has one for each sample"),
        (np.eye(4)[:3], r"an affine is a matrix of \(4, 4\) finite numbers, not one of shape \(3, 4\)"),
        ("near", "an affine is a matrix of numbers, not 'near'"),
        ([[1.0, float("inf")], [0, 1]], r"an affine is a matrix of \(4, 4\) finite numbers"),
        (np.eye(4) + 1j, "an affine is a matrix of numbers, .*its numbers are complex"),
        (torch.eye(4) + 0j, "an affine is a matrix of numbers, .*its numbers are complex"),
        (np.ma.array(np.eye(4), mask=np.eye(4)), "an affine is a matrix of numbers, .* a masked array"),
        (affine_of(1).T, r"has the last row \(0, 0, 0, 1\).*; it is the transpose of one, so hand over affine\.T"),
        (affine_of(1)[:3, :3], r"has the last row \(0, 0, 0, 1\)"),  # a rotation is no affine of two dimensions
        (2 * np.eye(4), r"has the last row \(0, 0, 0, 1\).*affine / affine\[-1, -1\]"),
        (np.diag([2.0, 2, 2, 3, 1]), "of more than three axes it holds nothing, so hand over the"),
        (np.diag([1e39, 1, 1, 1]), r"numbers up to 1e\+30, got \[\[1e\+39"),
    ],
)
def test_what_is_no_affine_is_refused(affine, text):
    """A wrong place in space is worse than none, and so is a part of a matrix that would be left out."""
    with pytest.raises(ValueError, match=text):
        write_nifti.encode({"image": noise(1, 3, 4), "affine": affine})
    with pytest.raises(ValueError, match=text):
        write_nifti.with_options(affine=affine)


def test_what_a_file_has_no_room_for_may_be_that_of_the_identity():
    """What an inverse leaves of a last row, and a fourth axis without a size; of one axis the offset is kept, too."""
    affine = affine_of(1)
    noisy = affine.copy()
    noisy[3, :3] = 1e-15
    five = np.eye(5)
    five[:3, :3], five[:3, 4] = affine[:3, :3], affine[:3, 3]
    for one in (noisy, five):
        np.testing.assert_allclose(
            decode_nifti(encoded({"image": noise(1, 3, 4), "affine": one}))["affine"], affine, 1e-5
        )
    line = decode_nifti(encoded({"image": noise(1, 3, 4), "affine": [[2, 7], [0, 1]]}))["affine"]
    assert line[0].tolist() == [2, 0, 0, 7]


@pytest.mark.parametrize("make", [torch.from_numpy, np.asarray], ids=["torch", "numpy"])
def test_true_may_be_any_byte_but_zero(make):
    """As of a mask of 0 and 255 that is viewed as bools: it is stored as 1."""
    value = make(np.array([0, 1, 2, 255], np.uint8).view(np.bool_).reshape(1, 2, 2, 1))
    image = decode_nifti(encoded(value))["image"]
    assert (image.dtype, image.ravel().tolist()) == (np.uint8, [0, 1, 1, 1])


# MONAI's tensors


def helpers_of(service):
    return [
        psutil.Process(member.process.popen.pid) for member in service._lifecycle.backend._helpers.members if member
    ]


@pytest.mark.parametrize("backend", ["thread", "process"])
def test_a_meta_tensor_keeps_its_affine_whoever_writes_it(tmp_path, backend):
    """Alone, in a list, and in a collated batch, in which each row has an affine of its own."""
    images = [MetaTensor(noise(1, 3, 4, 5) + i, affine=torch.from_numpy(affine_of(i))) for i in range(4)]
    batch = list_data_collate([{"image": image} for image in images])["image"]
    with BackgroundWriter("nifti", tmp_path, backend=backend, max_workers=1) as writer:
        writer.submit("one", images[0])
        writer.submit("dict", {"image": images[1]})
        writer.submit_batch(["list-0", "list-1"], images[:2])
        writer.submit_batch([f"batch-{i}" for i in range(4)], batch * 2)
        writer.flush()
        if backend == "process":  # neither MONAI nor PyTorch is loaded there
            for helper in helpers_of(writer):
                assert not [one.path for one in helper.memory_maps() if "torch" in one.path]
    of = {"one": 0, "dict": 1, "list-0": 0, "list-1": 1, **{f"batch-{i}": i for i in range(4)}}
    for name, i in of.items():
        voxels, affine = read(tmp_path / f"{name}.nii.gz")
        factor = 2 if name.startswith("batch") else 1
        np.testing.assert_array_equal(voxels, factor * images[i].as_tensor()[0].numpy())
        np.testing.assert_allclose(affine, affine_of(i), atol=1e-4)


def test_rows_of_a_batch_with_one_affine_have_that(tmp_path):
    """A batch that was not collated by MONAI knows one affine, and so has each row."""
    batch = MetaTensor(noise(2, 1, 3, 4, 5), affine=torch.from_numpy(affine_of(2)))
    with BackgroundWriter({"scan": "nifti", "sum": "text"}, tmp_path) as writer:
        writer.submit_batch(["a", "b"], {"scan": batch, "sum": ["one", "two"]})
    for name in "ab":
        np.testing.assert_allclose(read(tmp_path / f"{name}.scan.nii.gz")[1], affine_of(2), atol=1e-4)


@pytest.mark.parametrize(
    "writer",
    [
        *("npy", "image_2d", "row"),
        *(pytest.param(other, marks=pytest.mark.long) for other in ("safetensors", "json", "jpeg", "webp", "tiff")),
    ],
)
def test_other_formats_take_the_plain_tensor_of_monais(tmp_path, writer):
    """In a batch and alone, with neither MONAI nor PyTorch in the helper, and equal to what a plain tensor gives."""
    value = noise(2, 3, 16, 16) / 100
    target = ArrayTarget(tmp_path / "a.npy", rows=3) if writer == "row" else LocalTarget(tmp_path / "files")
    names = ["0", "1", "2"]
    with BackgroundWriter(writer, target, backend="process", max_workers=1) as background:
        background.submit_batch(names[:2], MetaTensor(value), origin=Origin([0, 1]))
        background.submit_batch(names[2:], [MetaTensor(value[1])], origin=Origin([2]))
        background.flush()
        for helper in helpers_of(background):
            assert not [one.path for one in helper.memory_maps() if "torch" in one.path]
    results = open_results(target)
    for index, row in enumerate([value[0], value[1], value[1]]):
        encoder = writer_registry.get(writer)
        made = encoder.decode(encoded(row, encoder), shape=(3, 16, 16), dtype="float32")
        assert is_equal(results[names[index]], made)


@pytest.mark.parametrize("backend", ["thread", "process"])
def test_an_affine_of_left_and_posterior_becomes_one_of_right_and_anterior(tmp_path, backend):
    """As some readers of MONAI's leave it, which they note in the tensor's meta: the voxels stay where they are."""
    spaces = ["RAS", "LPS", SpaceKeys.LPS]
    images = [
        MetaTensor(noise(1, 3, 4, 5), affine=torch.from_numpy(affine_of(i)), meta={"space": space})
        for i, space in enumerate(spaces)
    ]
    batch = list_data_collate([{"image": image} for image in images])["image"]
    with BackgroundWriter("nifti", tmp_path, backend=backend, max_workers=1) as writer:
        for i, image in enumerate(images):
            writer.submit(f"one-{i}", image)
            writer.submit(f"dict-{i}", {"image": image})
            writer.submit(f"own-{i}", {"image": image, "affine": affine_of(i)})
        writer.submit_batch([f"batch-{i}" for i in range(3)], batch)
        writer.submit_batch([f"list-{i}" for i in range(3)], images)
    for i, space in enumerate(spaces):
        there = affine_of(i) if space == "RAS" else np.diag([-1.0, -1, 1, 1]) @ affine_of(i)
        for name in ("one", "dict", "batch", "list"):
            np.testing.assert_allclose(read(tmp_path / f"{name}-{i}.nii.gz")[1], there, atol=1e-4)
        np.testing.assert_allclose(read(tmp_path / f"own-{i}.nii.gz")[1], affine_of(i), atol=1e-4)
        assert decode_nifti(encoded(images[i]))["affine"][0, 0] == pytest.approx(there[0, 0])
        assert torch.equal(images[i].affine, torch.from_numpy(affine_of(i)))  # the caller's is as it was


SHAPES = [(3, 4, 5), (2, 4, 5, 6), (1, 4, 5, 1), (1, 4, 5, 6, 7), (2, 4, 5, 6, 7), (1, 2, 1, 2, 1, 2, 1), (1, 1, 1)]


@pytest.mark.parametrize(
    ("backend", "form"),
    [
        *(("thread", "files"), ("process", "shards")),
        *(pytest.param(*other, marks=pytest.mark.long) for other in (("thread", "shards"), ("process", "files"))),
    ],
)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_volume_with_an_affine_is_read_back_in_its_shape(tmp_path, shape, backend, form):
    """Also a series of one channel, whose file looks like one volume with a channel for each time."""
    where = LocalTarget(tmp_path) if form == "files" else TarShards(tmp_path)
    value = noise(*shape, dtype=torch.int16)
    batch = MetaTensor(torch.stack([value, value + 1]), affine=torch.from_numpy(affine_of(1)))
    with BackgroundWriter({"x": "nifti", "y": "nifti"}, where, backend=backend, max_workers=1) as writer:
        writer.submit("one", {"x": MetaTensor(value, affine=torch.from_numpy(affine_of(1))), "y": value})
        writer.submit("dict", {"x": {"image": value, "affine": affine_of(1)}, "y": {"image": value.numpy()}})
        writer.submit_batch(["a", "b"], {"x": batch, "y": [value, value + 1]})
    for key in ("x", "y"):
        results = open_results(where, key=key)
        for name, number in (("one", 0), ("dict", 0), ("a", 0), ("b", 1)):
            np.testing.assert_array_equal(results[name]["image"], value.numpy() + number, strict=True)
            assert (results.record(name).shape, results.record(name).dtype) == (shape, "int16")


def test_the_shape_of_a_volume_that_a_device_has_turned_is_that_of_the_value():
    """It comes with its axes in the file's order."""
    (turned,) = write_nifti.prepare(torch.empty(1, 2, 3, 4, 5, device="meta"), is_batch=True)
    parts = {"image": ("int16", tuple(turned["image"].shape)), "affine": None, "order": turned["order"]}
    assert write_nifti.kind_of_dict(parts) == ("int16", (2, 3, 4, 5))
    assert write_nifti.kind_of_dict({"image": 3}) is None


WITHOUT_MONAI = """
    import builtins, sys
    import torch
    from lighter_async import BackgroundWriter, open_results

    class Image(torch.Tensor):  # with the attributes of MONAI's
        pass

    image = torch.rand(1, 3, 4, 5).as_subclass(Image)
    image.meta = {}
    image.affine = torch.diag(torch.tensor([2.0, 3, 4, 1]))
    for backend in ("thread", "process"):
        with BackgroundWriter("nifti", f"{sys.argv[1]}/{backend}", backend=backend) as writer:
            writer.submit("a", image)
        found = open_results(f"{sys.argv[1]}/{backend}")["a"]
        assert found["affine"].diagonal().tolist() == [2, 3, 4, 1], found["affine"]
        assert (found["image"] == image.numpy()).all()
    assert not {"monai", "nibabel"} & set(sys.modules)
"""


@pytest.mark.long
def test_neither_monai_nor_nibabel_is_needed(tmp_path):
    """A tensor's affine is known by its attributes."""
    command = [sys.executable, "-c", textwrap.dedent(WITHOUT_MONAI), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


@lightning_warnings
def test_volumes_that_a_resumed_run_lacks_have_their_own_affines(tmp_path):
    """Some rows of MONAI's batch are left out, which must not give the others the affine of the first."""
    images = [{"image": MetaTensor(noise(1, 3, 4, 5), affine=torch.from_numpy(affine_of(i)))} for i in range(4)]
    for stored in (1, 4):
        loader = torch.utils.data.DataLoader(images[:stored], batch_size=4, collate_fn=list_data_collate)
        writer = FileWriter(tmp_path, "image", "nifti", name_key="id", resume=True)

        def step(batch, index, _):
            return {"image": batch["image"], "id": [f"case.{i}" for i in range(len(batch["image"]))]}

        predict(pytorch_lightning, step, writer, data=loader)
    for i in range(4):
        np.testing.assert_allclose(read(tmp_path / f"case.{i}.nii.gz")[1], affine_of(i), atol=1e-4)


def test_a_meta_tensor_that_was_kept_is_replayed_with_its_affine(tmp_path):
    """Its voxels and affine are plain values, which are loaded without running code."""
    value = MetaTensor(noise(1, 3, 4, 5), affine=torch.from_numpy(affine_of(1)))
    (tmp_path / "a.nii.gz").mkdir()  # in the way
    writer = BackgroundWriter("nifti", tmp_path, on_error="continue", attempts=1)
    writer.submit("a", value)
    with pytest.raises(WriteError, match="'a'"):
        writer.close()
    (tmp_path / "a.nii.gz").rmdir()
    assert main(["replay", str(tmp_path)]) in (0, None)
    np.testing.assert_allclose(read(tmp_path / "a.nii.gz")[1], affine_of(1), atol=1e-4)


# Names, shards, and what is read back


def test_a_suffix_of_two_dots_is_one_suffix_everywhere(tmp_path):
    """Files, shards, what is unpacked from them, and results by their names."""
    values = {name: noise(1, 3, 4, 5) + i for i, name in enumerate(["case", "case.1", "x/case.2", "nii.gz"])}
    for where in (LocalTarget(tmp_path / "files"), TarShards(tmp_path / "shards")):
        with BackgroundWriter("nifti", where) as writer:
            writer.submit_batch(list(values), list(values.values()))
    assert main(["unpack", str(tmp_path / "shards"), str(tmp_path / "unpacked")]) in (0, None)
    for where in ("files", "unpacked"):
        files = {str(one.relative_to(tmp_path / where)) for one in (tmp_path / where).rglob("*.nii.gz")}
        assert files == {f"{name}.nii.gz" for name in values}
    for where in ("files", "shards", "unpacked"):
        results = open_results(tmp_path / where)
        assert sorted(results) == sorted(values)
        for name, value in values.items():
            np.testing.assert_array_equal(results[name]["image"], value.numpy())


@lightning_warnings
def test_a_callback_writes_the_volumes_of_a_pipeline(tmp_path):
    """MONAI's batches go through the model, and each volume has its own affine."""
    images = [{"image": MetaTensor(noise(1, 3, 4, 5), affine=torch.from_numpy(affine_of(i)))} for i in range(4)]
    loader = torch.utils.data.DataLoader(images, batch_size=2, collate_fn=list_data_collate)

    def step(batch, index, _):
        return {"image": batch["image"] > 50, "id": [f"case.{2 * index}", f"case.{2 * index + 1}"]}

    predict(pytorch_lightning, step, FileWriter(tmp_path, "image", "nifti", name_key="id"), data=loader)
    for i in range(4):
        voxels, affine = read(tmp_path / f"case.{i}.nii.gz")
        np.testing.assert_array_equal(voxels, (noise(3, 4, 5) > 50).numpy().astype("u1"))
        np.testing.assert_allclose(affine, affine_of(i), atol=1e-4)


@pytest.mark.parametrize(
    "shape", [(1, 3, 4), (2, 3, 4), (2, 3, 4, 1), (1, 3, 4, 5), (2, 3, 4, 5), (1, 2, 3, 4, 5)], ids=str
)
def test_an_image_is_read_back_in_the_shape_that_was_recorded(tmp_path, shape):
    """The file does not tell all of them apart."""
    with BackgroundWriter("nifti", tmp_path) as writer:
        writer.submit("a", noise(*shape))
        writer.submit("again", {"image": noise(*shape)})
    results = open_results(tmp_path)
    np.testing.assert_array_equal(results["a"]["image"], noise(*shape).numpy(), strict=True)
    assert results["a"]["image"].flags.c_contiguous
    assert gzip.decompress(results.read_bytes("again")) == encoded(results["again"])


def test_a_shape_that_does_not_fit_is_refused():
    """Instead of being made to."""
    with pytest.raises(ValueError, match="is no image of shape"):
        decode_nifti(encoded(noise(1, 3, 4, 5)), shape=(1, 5, 4, 3))


def changed(data, at, new):
    return data[:at] + new + data[at + len(new) :]


FILE = encoded(noise(1, 3, 4, 5))
DAMAGED = {
    "empty": b"",
    "short": FILE[:200],
    "another size of header": changed(FILE, 0, b"\x5d"),
    "two files": changed(FILE, 344, b"ni1\0"),
    "an extension": changed(FILE, 348, b"\1"),
    "no dimensions": changed(FILE, 40, b"\0\0"),
    "too many dimensions": changed(FILE, 40, b"\x08\0"),
    "a negative size": changed(FILE, 42, b"\xff\xff"),
    "another size": changed(FILE, 42, b"\xff\x7f"),
    "another datatype": changed(FILE, 70, b"\x01\0"),
    "scaled": changed(FILE, 112, b"\0\0\0\x40"),
    "one voxel less": FILE[:-4],
    "one byte more": FILE + b"\0",
    "compressed, and no NIfTI": gzip.compress(b"x" * 1000),
    "compressed, and more": gzip.compress(FILE + bytes(10_000)),
    "compressed, and less": gzip.compress(FILE[:-4]),
    "compressed, and cut": gzip.compress(FILE)[:-30],
    "a bomb": gzip.compress(changed(FILE, 40, np.array([7, *[32767] * 7], "<i2").tobytes())),
}


@pytest.mark.parametrize("data", DAMAGED.values(), ids=DAMAGED)
def test_a_file_of_anybody_is_read_or_refused(tmp_path, data):
    """Before memory is taken for what it claims; and so it is by its name, with the sample's."""
    with pytest.raises(Exception, match=r"NIfTI|header|scaled|voxels|incomplete|truncated|Error|end of"):
        decode_nifti(data)
    with BackgroundWriter("nifti", tmp_path, backend="thread") as writer:
        writer.submit("a", noise(1, 3, 4, 5))
    (tmp_path / "a.nii.gz").write_bytes(data)
    with pytest.raises(ReadError, match="'a'"):
        open_results(tmp_path, check=False)["a"]


def test_files_of_nibabel_are_read():
    """If they are in one piece, and their voxels are as they are."""
    image = nibabel.Nifti1Image(noise(3, 4, 5).numpy(), affine_of(4))
    found = decode_nifti(image.to_bytes())
    np.testing.assert_array_equal(found["image"], noise(3, 4, 5).numpy()[None])
    np.testing.assert_allclose(found["affine"], affine_of(4), atol=1e-4)


# Options


def test_the_suffix_says_whether_it_is_compressed(tmp_path):
    """As for nibabel; another ending is refused before anything is written."""
    with BackgroundWriter("nifti", tmp_path, writer_options={"suffix": "_seg.nii"}) as writer:
        writer.submit("a", noise(1, 3, 4, 5))
    assert (tmp_path / "a_seg.nii").read_bytes() == encoded(noise(1, 3, 4, 5))
    write_nifti(tmp_path / "b", noise(1, 3, 4, 5), suffix=".nii")
    assert (tmp_path / "b.nii").read_bytes() == encoded(noise(1, 3, 4, 5))
    with pytest.raises(ValueError, match=r"ends in '\.nii\.gz' or '\.nii', not '\.mha'"):
        BackgroundWriter("nifti", tmp_path / "out", writer_options={"suffix": ".mha"})
    assert not (tmp_path / "out").exists()


def test_an_option_that_there_is_not_is_refused_with_those_that_there_are():
    """Each once."""
    with pytest.raises(
        TypeError, match=r"its options are suffix, affine, channel_dim, compress_level; did you mean 'affine'\?$"
    ):
        write_nifti.with_options(afine=None)


def test_a_dict_of_other_keys_is_refused_with_the_way_out(tmp_path):
    """Several outputs have a writer each."""
    with pytest.raises(WriteError, match=r"has the keys 'image' and 'affine', not .*'mask'"):
        with BackgroundWriter("nifti", tmp_path) as writer:
            writer.submit("a", {"mask": noise(1, 3, 4)})
