import gzip
import shutil
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets import FashionMNIST
from torchvision.datasets.utils import calculate_md5

from tests.pictures import picture
from training.data import LabelledImages, load_dataset, stratified_choice
from training.errors import DataError
from training.fashion_mnist import (
    PACKAGE_FOLDER,
    SIDE,
    TEST_FILES,
    TEST_IMAGES,
    TRAIN_FILES,
    TRAIN_IMAGES,
    _read_idx,
    find_fashion_mnist,
    read_fashion_mnist,
)
from training.recipes import cnn
from vision.preprocess import Preprocessing

SMALL = Preprocessing(size=12, channels=3, mean=(0.5,) * 3, std=(0.5,) * 3)


def save(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture(seed, (16, 14)).save(path)


def class_folders(folder: Path, *, classes: tuple[str, ...] = ("bag", "coat"), each: int) -> Path:
    for number, name in enumerate(classes):
        for image in range(each):
            save(folder / name / f"{image}.png", 100 * number + image)
    return folder


# A folder of class folders


def test_a_folder_is_split_the_same_way_every_time_with_every_class_in_both_parts(
    tmp_path: Path,
) -> None:
    class_folders(tmp_path, each=10)
    first, second = (load_dataset(str(tmp_path), SMALL) for _ in range(2))
    assert first.label_names == ("bag", "coat")
    assert first.train.images_NCHW.shape == (16, 3, 12, 12)
    assert np.bincount(first.train.labels_N).tolist() == [8, 8]
    assert np.bincount(first.test.labels_N).tolist() == [2, 2]
    assert first.to_json() == second.to_json()


@pytest.mark.parametrize("name", ["test", "validation", "val"])
def test_a_test_part_of_its_own_is_used(tmp_path: Path, name: str) -> None:
    class_folders(tmp_path / "train", each=3)
    class_folders(tmp_path / name, each=2)
    dataset = load_dataset(str(tmp_path), SMALL)
    assert (len(dataset.train), len(dataset.test)) == (6, 4)
    assert dataset.test.label_names == ("bag", "coat")


def test_pixels_are_those_that_serving_would_make(tmp_path: Path) -> None:
    class_folders(tmp_path / "train", each=2)
    class_folders(tmp_path / "test", each=1)
    dataset = load_dataset(str(tmp_path), SMALL)
    data = (tmp_path / "train" / "coat" / "1.png").read_bytes()
    np.testing.assert_array_equal(dataset.train.images_NCHW[3], SMALL.pixels(SMALL.decode(data)))


def test_unreadable_files_are_left_out_and_named(tmp_path: Path) -> None:
    class_folders(tmp_path, each=4)
    (tmp_path / "bag" / "notes.txt").write_text("not an image")
    (tmp_path / "coat" / "empty.jpg").touch()
    whole = (tmp_path / "coat" / "0.png").read_bytes()
    (tmp_path / "coat" / "half.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "coat" / ".hidden").write_text("skipped")
    (tmp_path / "coat" / "gone.png").symlink_to(tmp_path / "nowhere")
    dataset = load_dataset(str(tmp_path), SMALL)
    assert len(dataset.train) + len(dataset.test) == 8
    assert {path.name for path, _ in dataset.unreadable} == {
        "notes.txt",
        "empty.jpg",
        "half.png",
        "gone.png",
    }
    assert all(reason for _, reason in dataset.unreadable)


def test_images_may_lie_deeper_in_a_class_folder_and_progress_is_told(tmp_path: Path) -> None:
    class_folders(tmp_path, each=2)
    save(tmp_path / "bag" / "2019" / "may" / "x.png", 7)
    calls: list[tuple[int, int]] = []
    load_dataset(str(tmp_path), SMALL, report=lambda done, total: calls.append((done, total)))
    assert calls[-1] == (5, 5)


def nothing(folder: Path) -> None:
    folder.rmdir()


def a_file(folder: Path) -> None:
    folder.rmdir()
    folder.write_text("x")


def loose_images(folder: Path) -> None:
    save(folder / "a.png", 0)


def one_class(folder: Path) -> None:
    class_folders(folder, classes=("bag",), each=3)


def an_empty_class(folder: Path) -> None:
    class_folders(folder, each=2)
    (folder / "dress").mkdir()


def no_images(folder: Path) -> None:
    for name in ("bag", "coat"):
        (folder / name).mkdir()
        (folder / name / "a.txt").write_text("x")


def a_class_of_unreadable_files(folder: Path) -> None:
    class_folders(folder, each=2)
    (folder / "dress").mkdir()
    (folder / "dress" / "a.txt").write_text("x")


def a_class_of_one_image(folder: Path) -> None:
    class_folders(folder, each=2)
    save(folder / "dress" / "a.png", 0)


def an_unknown_class_in_test(folder: Path) -> None:
    class_folders(folder / "train", each=2)
    class_folders(folder / "test", classes=("bag", "hat"), each=1)


def a_class_missing_in_test(folder: Path) -> None:
    class_folders(folder / "train", each=2)
    class_folders(folder / "test", classes=("bag",), each=1)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (nothing, "is not there; a folder of class folders was expected"),
        (a_file, "is not a folder; a folder of class folders was expected"),
        (lambda folder: None, "holds no class folders"),
        (loose_images, "holds no class folders"),
        (one_class, "holds one class, 'bag'; at least 2 are needed"),
        (an_empty_class, "dress is empty"),
        (no_images, "none of the 2 files is an image; the first, .*a.txt: the content is not"),
        (a_class_of_unreadable_files, "class 'dress' in .* has no readable training image"),
        (a_class_of_one_image, "class 'dress' in .* has no readable test image"),
        (an_unknown_class_in_test, "hat is a class that .*train does not have"),
        (a_class_missing_in_test, "class 'coat' in .* has no readable test image"),
    ],
)
def test_a_folder_nothing_can_be_learnt_from_is_refused_with_a_sentence(
    tmp_path: Path, make: Callable[[Path], None], sentence: str
) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    make(folder)
    with pytest.raises(DataError, match=sentence):
        load_dataset(str(folder), SMALL)


def test_a_stratified_choice_takes_its_share_of_every_class_but_never_all() -> None:
    labels_N = np.array([0] * 50 + [1] * 5 + [2] * 2 + [3])
    chosen_N = stratified_choice(labels_N, 0.2, seed=0)
    assert np.bincount(labels_N[chosen_N], minlength=4).tolist() == [10, 1, 1, 0]
    assert not np.array_equal(chosen_N, stratified_choice(labels_N, 0.2, seed=1))


def test_a_fingerprint_changes_with_every_pixel_label_and_name() -> None:
    def images(**changed: object) -> LabelledImages:
        fields: dict[str, object] = {
            "images_NCHW": np.zeros((2, 1, 3, 3), np.uint8),
            "labels_N": np.array([0, 1]),
            "label_names": ("a", "b"),
        }
        return LabelledImages(**{**fields, **changed})  # type: ignore[arg-type]

    pixel = np.zeros((2, 1, 3, 3), np.uint8)
    pixel[1, 0, 2, 2] = 1
    variants = [
        images(),
        images(images_NCHW=pixel),
        images(labels_N=np.array([1, 0])),
        images(label_names=("a", "c")),
    ]
    assert images().fingerprint == images().fingerprint
    assert len({variant.fingerprint for variant in variants}) == 4


# Fashion-MNIST


def idx(shape: tuple[int, ...], data: bytes, *, kind: int = 8) -> bytes:
    sizes = b"".join(size.to_bytes(4, "big") for size in shape)
    return bytes((0, 0, kind, len(shape))) + sizes + data


@pytest.fixture(scope="module")
def zeros(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The four files with the right sizes and nothing but zeros in them."""
    folder = tmp_path_factory.mktemp("zeros")
    for names, count in ((TRAIN_FILES, TRAIN_IMAGES), (TEST_FILES, TEST_IMAGES)):
        for name, shape in zip(names, ((count, SIDE, SIDE), (count,)), strict=True):
            data = idx(shape, bytes(int(np.prod(shape))))
            (folder / name).write_bytes(gzip.compress(data, compresslevel=1))
    return folder


def test_the_four_files_give_both_parts(zeros: Path) -> None:
    (train_images, train_labels), (test_images, test_labels) = read_fashion_mnist(zeros)
    assert train_images.shape == (60_000, 28, 28)
    assert test_images.shape == (10_000, 28, 28)
    assert (train_labels.shape, test_labels.shape) == ((60_000,), (10_000,))


def test_values_come_in_the_order_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.gz"
    path.write_bytes(gzip.compress(idx((2, 3), bytes(range(6)))))
    np.testing.assert_array_equal(_read_idx(path, (2, 3)), [[0, 1, 2], [3, 4, 5]])


def truncated(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def a_web_page(path: Path) -> None:
    path.write_bytes(b"<html>404</html>")


def another_kind(path: Path) -> None:
    path.write_bytes(gzip.compress(idx((TRAIN_IMAGES,), bytes(TRAIN_IMAGES), kind=9)))


def too_few(path: Path) -> None:
    path.write_bytes(gzip.compress(idx((TRAIN_IMAGES,), bytes(TRAIN_IMAGES - 1))))


def too_many(path: Path) -> None:
    path.write_bytes(gzip.compress(idx((TRAIN_IMAGES,), bytes(TRAIN_IMAGES + 1))))


def an_unknown_label(path: Path) -> None:
    path.write_bytes(gzip.compress(idx((TRAIN_IMAGES,), bytes(TRAIN_IMAGES - 1) + b"\x0a")))


def removed(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (truncated, "is damaged: not a whole gzip file"),
        (flipped, "is damaged"),
        (emptied, "is damaged: an idx file of 60000 bytes was expected"),
        (a_web_page, "is damaged: not a whole gzip file"),
        (another_kind, "is damaged: an idx file of 60000 bytes was expected"),
        (too_few, "60008 bytes were expected after decompression, got 60007"),
        (too_many, "60008 bytes were expected after decompression, got more"),
        (an_unknown_label, "labels of 0 to 9 were expected, got 10"),
        (removed, "is missing"),
    ],
)
def test_a_damaged_file_is_refused_with_a_sentence(
    tmp_path: Path, zeros: Path, damage: Callable[[Path], None], sentence: str
) -> None:
    for path in zeros.iterdir():
        (tmp_path / path.name).symlink_to(path)
    victim = tmp_path / TRAIN_FILES[1]
    victim.unlink()
    shutil.copy(zeros / victim.name, victim)
    damage(victim)
    with pytest.raises(DataError, match=sentence) as caught:
        read_fashion_mnist(tmp_path)
    assert victim.name in str(caught.value)


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *arguments: object) -> None:
        """Keep the tests' output clean."""


@pytest.fixture
def mirror(zeros: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A web server that has the four files, in the place of the real ones."""
    resources = [(path.name, calculate_md5(str(path))) for path in sorted(zeros.iterdir())]
    monkeypatch.setattr(FashionMNIST, "resources", resources)
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(zeros))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/"
        monkeypatch.setattr(FashionMNIST, "mirrors", ["http://127.0.0.1:1/", address])
        yield address
        server.shutdown()


def test_without_the_package_files_are_downloaded_once_and_half_files_are_replaced(
    mirror: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    (cache / TRAIN_FILES[0]).write_bytes(b"half a file")
    folder = find_fashion_mnist(cache, package_folder=tmp_path / "not-installed")
    read_fashion_mnist(folder)
    monkeypatch.setattr(FashionMNIST, "mirrors", [])  # nothing more may be asked for
    assert find_fashion_mnist(cache, package_folder=tmp_path / "not-installed") == folder


def test_without_package_and_network_one_sentence_names_both_ways_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FashionMNIST, "mirrors", ["http://127.0.0.1:1/"])
    with pytest.raises(
        DataError, match=r"install the Debian package .*, or connect to the internet"
    ):
        find_fashion_mnist(tmp_path / "cache", package_folder=tmp_path / "not-installed")


def test_a_download_that_is_not_the_file_is_refused(
    mirror: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FashionMNIST, "mirrors", [mirror])
    monkeypatch.setattr(FashionMNIST, "resources", [(TEST_FILES[1], "0" * 32)])
    with pytest.raises(DataError, match="connect to the internet"):
        find_fashion_mnist(tmp_path / "cache", package_folder=tmp_path / "not-installed")


@pytest.mark.skipif(not PACKAGE_FOLDER.is_dir(), reason="dataset-fashion-mnist is not installed")
def test_the_real_files_hold_what_the_paper_says() -> None:
    dataset = load_dataset("fashion-mnist", cnn().preprocessing)
    assert np.bincount(dataset.train.labels_N).tolist() == [6000] * 10
    assert np.bincount(dataset.test.labels_N).tolist() == [1000] * 10
    assert dataset.train.labels_N[:5].tolist() == [9, 0, 0, 3, 0]
    scaled = dataset.train.images_NCHW / np.float32(255)
    assert scaled.mean() == pytest.approx(cnn().preprocessing.mean[0], abs=1e-4)
    assert scaled.std() == pytest.approx(cnn().preprocessing.std[0], abs=1e-4)
    # its native pixels are what the slow way, through a picture, would give
    image = Image.fromarray(dataset.test.images_NCHW[7, 0]).convert("RGB")
    np.testing.assert_array_equal(dataset.test.images_NCHW[7], cnn().preprocessing.pixels(image))
