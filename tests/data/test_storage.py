"""The bundled MNIST is the published one, and so must a user's own copy be."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from conftest import idx_bytes, lay_out
from vggnet.data.catalog import CATALOG
from vggnet.data.dataset import Dataset, LabeledImages, hold_out
from vggnet.data.known import load_test
from vggnet.data.storage import load_dataset
from vggnet.errors import ConfigError, DataError

MD5 = {
    "train images": "6bbc9ace898e44ae57da46a324031adb",
    "train labels": "a25bea736e30d166cdddb491f175f624",
    "test images": "2646ac647ad5339dbf082846283269ea",
    "test labels": "27ae3e4e09519cfbb04c329615203637",
}
"""As published beside the files, and as torchvision's `mnist.py` pins the unpacked ones."""


def test_mnist_is_the_published_one(mnist: Dataset) -> None:
    """Written back as IDX, the four arrays have the MD5 that the field knows."""
    found = {
        f"{split} {kind}": hashlib.md5(idx_bytes(array)).hexdigest()
        for split, examples in (("train", mnist.train), ("test", mnist.test))
        for kind, array in (("images", examples.images[:, 0]), ("labels", examples.labels))
    }
    assert found == MD5


def test_shapes(mnist: Dataset) -> None:
    """Images are uint8 (N, 1, 28, 28), with a label each."""
    assert mnist.train.images.shape == (60_000, 1, 28, 28)
    assert mnist.test.images.shape == (10_000, 1, 28, 28)
    assert mnist.train.images.dtype == mnist.train.labels.dtype == np.uint8
    assert mnist.classes == tuple("0123456789")


@pytest.mark.parametrize("zipped", [False, True])
def test_torchvisions_layout_is_read(tmp_path: Path, mnist: Dataset, zipped: bool) -> None:
    """A `./data` that torchvision made gives the same images, raw or gzipped."""
    raw = lay_out(tmp_path, mnist, zipped)
    for folder in (tmp_path, raw, raw.parent):
        test, warnings = load_test(CATALOG["mnist"], folder)
        assert warnings == ()
        assert (test.images == mnist.test.images).all()
        assert (test.labels == mnist.test.labels).all()


def test_a_dataset_in_another_kind_of_file(tmp_path: Path, mnist: Dataset) -> None:
    """Keras' file of MNIST has the same hash, and is verified; its first images only are not."""
    arrays = {
        "x_train": mnist.train.images[:, 0], "y_train": mnist.train.labels,
        "x_test": mnist.test.images[:, 0], "y_test": mnist.test.labels,
    }  # fmt: skip
    np.savez(tmp_path / "mnist.npz", **arrays)
    found = load_dataset("mnist", tmp_path / "mnist.npz")
    assert (found.name, found.verified, found.sha256) == ("mnist", True, mnist.sha256)
    assert found.warnings == ()
    np.savez(tmp_path / "mnist.npz", **{name: array[:300] for name, array in arrays.items()})
    test, warnings = load_test(CATALOG["mnist"], tmp_path)
    assert (test.images == mnist.test.images[:300]).all()
    assert "are not the published ones of mnist" in warnings[0]
    clothes = load_dataset("fashion-mnist", tmp_path)
    assert clothes.classes == CATALOG["fashion-mnist"].classes
    assert clothes.test.labels.tolist() == mnist.test.labels[:300].tolist()
    np.savez(tmp_path / "mnist.npz", x=arrays["x_test"][:300], y=arrays["y_test"][:300] % 3)
    with pytest.raises(DataError, match="the classes 0, 1, 2, which are not those of mnist; to us"):
        load_dataset("mnist", tmp_path)


def test_changed_files_are_refused(tmp_path: Path, mnist: Dataset) -> None:
    """One changed pixel, one changed label, and a missing file are each refused."""
    raw = lay_out(tmp_path, mnist, zipped=False)
    labels = raw / "t10k-labels-idx1-ubyte"
    whole = labels.read_bytes()
    labels.write_bytes(whole[:-1] + bytes([(whole[-1] + 1) % 10]))
    with pytest.raises(DataError, match="not the published file"):
        load_test(CATALOG["mnist"], tmp_path)
    labels.write_bytes(whole[:-1] + b"\x0a")
    with pytest.raises(DataError, match="labels run from 0 to 10"):
        load_test(CATALOG["mnist"], tmp_path)
    labels.write_bytes(idx_bytes(mnist.test.labels[:-1]))
    with pytest.raises(DataError, match="10,000 images but 9,999 labels"):
        load_test(CATALOG["mnist"], tmp_path)
    labels.unlink()
    with pytest.raises(DataError, match="does not exist"):
        load_test(CATALOG["mnist"], tmp_path)


def test_a_folder_without_the_files_is_refused(tmp_path: Path) -> None:
    """The error says where the files would have to be."""
    with pytest.raises(DataError, match=r"expected .*MNIST/raw/train-images-idx3-ubyte"):
        load_dataset("mnist", tmp_path)
    with pytest.raises(ConfigError, match="did you mean 'mnist'"):
        load_dataset("mnits")


@pytest.mark.skipif(sys.platform != "linux", reason="such a name cannot be made")
def test_a_folder_whose_name_is_no_text_is_refused(tmp_path: Path, mnist: Dataset) -> None:
    """A model file could not record where its images came from."""
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    lay_out(folder, mnist, zipped=False)
    with pytest.raises(ConfigError, match=r"data\.data_dir: must be valid Unicode"):
        load_dataset("mnist", folder)


def test_a_name_too_long_for_the_disk_holds_nothing() -> None:
    """It is an error like any other folder that is not there."""
    with pytest.raises(DataError, match=300 * "x"):
        load_dataset("mnist", Path(300 * "x"))


HOMELESS = """
import os, sys
from vggnet.cli import main
from vggnet.data.catalog import CATALOG
from vggnet.data.storage import load_dataset
from vggnet.errors import DataError
os.setuid(54321)
assert len(load_dataset("mnist").test) == 10_000
try:
    load_dataset("kmnist")
except DataError as error:
    print(error)
sys.argv = ["vggnet", "data", "list"]
main()
"""


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can become nobody"
)
@pytest.mark.parametrize("home", [None, "locked", f"/{300 * 'x'}"])
def test_a_user_without_a_home_has_mnist(tmp_path: Path, home: str | None) -> None:
    """What needs no cache works without; what does need one names the variable."""
    (tmp_path / "locked").mkdir(mode=0)
    tmp_path.chmod(0o755)
    kept = {name: value for name, value in os.environ.items() if "HOME" not in name}
    env = {**kept, "VGGNET_CACHE_DIR": "", **({"HOME": str(tmp_path / home)} if home else {})}
    command = [sys.executable, "-c", HOMELESS]
    done = subprocess.run(
        command, env=env, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "VGGNET_CACHE_DIR" in done.stdout
    assert "would be downloaded from codh.rois.ac.jp" in done.stdout


def test_labeled_images_belong_together(few: LabeledImages) -> None:
    """Empty sets and wrong types are refused."""
    with pytest.raises(DataError, match="no image"):
        few.take(np.arange(0), "none")
    with pytest.raises(DataError, match="must be uint8"):
        LabeledImages(few.images.astype(np.float32), few.labels, 10, "floats")  # type: ignore[arg-type]


def test_hold_out_splits_without_overlap(few: LabeledImages) -> None:
    """Each image is either trained on or validated on, by the seed alone."""
    numbered = LabeledImages(few.images, np.arange(300), 300, "numbered")
    train, held = hold_out(numbered, 50, seed=3)
    assert held is not None
    assert sorted([*train.labels, *held.labels]) == list(range(300))
    assert len(held) == 50
    again = hold_out(numbered, 50, seed=3)[1]
    other = hold_out(numbered, 50, seed=4)[1]
    assert again is not None
    assert other is not None
    assert (again.labels == held.labels).all()
    assert (other.labels != held.labels).any()
    with pytest.raises(ConfigError, match="leaves nothing to train on"):
        hold_out(few, 300, seed=0)
