"""`lookalike up` and what it was not made for: odd sources, and options that come too late."""

import logging
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from cli.commands import app
from cli.up import stages
from cli.up.options import UpOptions
from cli.up.runner import run_up
from cli.up.survey import survey
from dataset.errors import DatasetError
from dataset.source import list_source
from files.durable import replace_file
from tests.cli.up.test_up import Made, photo
from tests.support.commands.run_command import lookalike
from tests.support.commands.up_runs import sentence_of, up
from tests.support.faults.loop_filesystems import mount_read_only, small_filesystem
from tests.support.images.pngs import encoded, picture
from tests.support.paths import DATA
from training.auto.feature_cache import FeatureStore
from training.errors import WeightsError
from training.fit.initialization.pretrained import _fetched_by_timm as fetched_by_timm
from vision.image.preprocessing import Preprocessing
from vision.model.manifest import read_manifest
from vision.networks.model_zoo import timm_library


@pytest.fixture(scope="module")
def made(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Made:
    made = Made(tmp_path_factory.mktemp("odd"), model)
    made.up()
    return made


def test_photos_of_every_format_are_surveyed_by_name_and_size(tmp_path: Path) -> None:
    """HEIC too, which Pillow does not open, and a PNG that the decoder has to mend."""
    shutil.copy(DATA / "phone.heic", tmp_path)
    whole = encoded(picture(1, (200, 150)), "PNG")
    (tmp_path / "cut.png").write_bytes(whole[:-12])  # without its last chunk
    for name in ("WEBP", "AVIF", "TIFF", "GIF", "BMP", "JPEG"):
        (tmp_path / f"1.{name.lower()}").write_bytes(encoded(picture(2, (200, 150)), name))

    looked = survey(
        list_source(tmp_path), Preprocessing(size=32, channels=3, mean=(0.5,) * 3, std=(0.5,) * 3)
    )

    assert looked.broken == 0
    assert looked.formats == {
        "PNG": 1,
        **dict.fromkeys(("HEIC", "WebP", "AVIF", "TIFF", "GIF", "BMP", "JPEG"), 1),
    }
    assert looked.size == (200, 150)


def test_an_archive_and_a_video_are_named_where_a_folder_is_expected(tmp_path: Path) -> None:
    (tmp_path / "p.zip").write_bytes(b"PK\x03\x04" + bytes(60))
    (tmp_path / "v.mp4").write_bytes(b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom")
    for name, kind in {"p.zip": "a ZIP archive", "v.mp4": "a video"}.items():
        with pytest.raises(DatasetError, match=f"{name} is not a folder but {kind}; a folder of"):
            list_source(tmp_path / name)


def test_larger_pictures_are_kept_from_the_very_run_that_asks_for_them(made: Made) -> None:
    done = up("photos", "--thumbnail", "512", cwd=made.folder)
    assert "from now on pictures of 512 pixels are kept" in done.stderr

    done = up("photos", "--thumbnail", "512", cwd=made.folder)
    assert "from now on" not in done.stderr  # it holds


def test_a_larger_budget_for_what_is_trained_is_said_to_need_another_training(
    made: Made,
) -> None:
    path = made.kept / "model" / "manifest.json"
    before = path.read_bytes()
    manifest = read_manifest(path.parent)
    path.write_bytes(replace(manifest, recipe={"budget_s": 120.0}).to_bytes())
    more = up("photos", "--budget", "2h", cwd=made.folder)
    same = up("photos", "--budget", "2m", cwd=made.folder)
    path.write_bytes(before)

    assert "it was trained with a budget of 2 min 0 s, less than now: --retrain" in more.stderr
    assert "--retrain" not in same.stderr


def test_a_folder_that_cannot_be_looked_into_is_said_every_time(made: Made) -> None:
    (made.photos / "elsewhere").symlink_to(made.folder / "unmounted")
    for _ in range(2):
        (line,) = [line for line in made.up() if line.startswith("indexed: ")]
        assert line.endswith("; elsewhere cannot be looked into now")
    (made.photos / "elsewhere").unlink()


def test_new_photos_are_named_as_they_are_called(made: Made) -> None:
    name = "\N{ARABIC LETTER MEEM}\N{COMBINING ACUTE ACCENT} -x 'y' \N{CAT FACE}.jpg"
    (made.photos / "hat" / name).write_bytes(photo(990))
    assert made.up()[3].endswith(f"1 photo added (hat/{name})")


def test_what_cannot_be_written_is_called_by_its_own_name(tmp_path: Path) -> None:
    """And not by that of a file that is gone when the person reads it."""
    with small_filesystem(tmp_path / "disk", megabytes=1) as disk:
        with pytest.raises(OSError, match="No space left") as full:
            replace_file(disk / "files.jsonl", bytes(2 * 2**20))
        assert full.value.filename == str(disk / "files.jsonl")
        assert list(disk.iterdir()) == []
        mount_read_only(disk)
        with pytest.raises(OSError, match="Read-only") as closed:
            replace_file(disk / "files.jsonl", b"")
        assert closed.value.filename == str(disk / "files.jsonl")


def test_a_place_for_failures_that_is_none_is_told_before_the_work(
    made: Made, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    for place in ("photos", str(tmp_path / "file" / "f.csv")):
        gallery = tmp_path / "gallery"
        command = ["index", "build", str(made.kept / "model"), "--data", "photos"]
        done = lookalike(*command, "--out", str(gallery), "--failures", place, cwd=made.folder)
        assert done.returncode == 1
        assert place in sentence_of(done)
        assert not gallery.exists()


def test_photos_that_come_and_go_during_the_training_are_indexed_as_they_are_then(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made = Made(tmp_path, model)
    trained = made.kept / "model"
    trained.rename(tmp_path / "trained")

    def train(*_: object, **__: object) -> str:
        (made.photos / "hat" / "0.jpg").unlink()
        (made.photos / "hat" / "new.jpg").write_bytes(photo(950))
        (made.photos / "hat" / "newer.jpg").write_bytes(photo(951))
        (tmp_path / "trained").rename(trained)
        return "trained"

    monkeypatch.setattr(stages, "train", train)
    run_up(UpOptions(source=str(made.photos), out=made.kept, serve=False, device="cpu"))

    said = capsys.readouterr().err
    assert "4/5 indexed 21 photos in" in said
    assert "cannot be read" not in said


def test_kept_features_that_a_disk_has_spoilt_are_computed_again(tmp_path: Path) -> None:
    class Encoder:
        def encode(self, images_NCHW: np.ndarray, report: object) -> np.ndarray:
            return images_NCHW.reshape(len(images_NCHW), -1).astype(np.float32)

    images_NCHW = np.arange(24, dtype=np.uint8).reshape(2, 3, 2, 2)
    store = FeatureStore(tmp_path)

    def features() -> np.ndarray:
        return store.features("one", images_NCHW, Encoder, lambda _: None)[0]  # type: ignore[arg-type]

    before = features()
    (piece,) = store.folder.iterdir()
    for damage in (piece.read_bytes()[:100], b"", b"PK\x03\x04", bytes(1000)):
        piece.write_bytes(damage)
        np.testing.assert_array_equal(features(), before)


@pytest.mark.parametrize(
    "command",
    [
        *(("up",), ("train", "--out", "m", "--data"), ("evaluate", "m", "--data")),
        *(("export", "m", "--data"), ("compare", "m", "m", "--data")),
        *(("index", "build", "m", "--out", "g", "--data"), ("index", "add", "g", "--data")),
    ],
)
def test_no_name_is_not_the_folder_that_one_stands_in(command: tuple[str, ...]) -> None:
    """As where a variable of the shell is empty."""
    for nothing in ("", " "):
        done = CliRunner().invoke(app, [*command, nothing])
        assert done.exit_code == 2
        assert "it is empty; a folder or a table was expected" in " ".join(
            done.stderr.replace("│", " ").split()
        )


@pytest.mark.parametrize("count", [1, 2])
def test_too_few_photos_are_told_at_once_and_nothing_is_made(tmp_path: Path, count: int) -> None:
    (tmp_path / "photos").mkdir()
    for number in range(count):
        (tmp_path / "photos" / f"{number}.jpg").write_bytes(photo(number))
    (tmp_path / "photos" / "film.mp4").write_bytes(b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom")
    for more in ((), ("--plan",)):
        done = up("photos", *more, cwd=tmp_path)
        assert done.returncode == 1
        sentence = sentence_of(done)
        assert f"{count} photo" in sentence
        assert "two to learn from and one to measure with are the least" in sentence
        assert "a video" in sentence  # that it was skipped may be why
        assert len(done.stderr.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]


def test_tries_to_fetch_weights_are_not_told_one_by_one(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def create_model(*_: object, **__: object) -> None:
        logging.getLogger("huggingface_hub.utils._http").warning("Retrying in 1s [Retry 1/5].")
        raise OSError("Connection refused")

    monkeypatch.setattr(timm_library(), "create_model", create_model)
    with pytest.raises(WeightsError, match=r"Connection refused.*--weights FILE"):
        fetched_by_timm("timm:resnet10t", "resnet10t", None)
    assert "Retrying" not in "".join(capfd.readouterr())


def test_of_very_many_labels_the_first_are_shown(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cli.gallery.info.MOST_LABELS", 1)
    command = ["index", "info", str(made.kept / "gallery"), "--labels"]
    done = CliRunner().invoke(app, command)
    assert "2 labels" in done.stdout
    assert "1 label more; --json gives all of them" in done.stderr
    assert '"hat"' in CliRunner().invoke(app, [*command, "--json"]).stdout
