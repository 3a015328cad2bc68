"""Decoding processes give what decoding here gives, and are ended by what takes too much."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from files.module_command import ROOT
from index.decoding import decoder_process
from service.http.admission import MemoryLimiter
from service.inference.decoder import PictureDecoder
from service.inference.decoder_pool import DecoderPool
from service.inference.task import Task
from tests.support.images.hostile_images import (
    animation,
    inflating_texts,
    many_chunks,
    many_segments,
    palette_png,
    repeated_baseline_scans,
    repeated_scans,
)
from tests.support.images.pngs import encoded, picture, png
from tests.support.paths import DATA
from vision.errors import CostlyImageError, ImageError
from vision.formats.decoding_cost import is_cheap
from vision.formats.detect import FORMATS, HEIC
from vision.image.limits import DEFAULT_LIMITS, ImageLimits
from vision.image.preprocessing import CropBox, Preprocessing
from vision.image.thumbnail import thumbnail_of

PREPROCESSING = Preprocessing(size=32, channels=3, mean=(0.5,) * 3, std=(0.5,) * 3)
SIDE = 128  # of thumbnails


@contextmanager
def started(
    *, timeout_s: float = 10, limits: ImageLimits = DEFAULT_LIMITS
) -> Iterator[DecoderPool]:
    decoders = DecoderPool(
        PictureDecoder(PREPROCESSING, limits), MemoryLimiter(2**30), timeout_s=timeout_s
    )
    try:
        yield decoders
    finally:
        decoders.close()


@pytest.fixture(scope="module")
def decoders() -> Iterator[DecoderPool]:
    with started() as running:
        yield running


def processes() -> list[int]:
    """Return the decoding processes of this one."""
    found = subprocess.run(
        ["pgrep", "-P", str(os.getpid()), "-f", "index.decoding.decoder_program"],
        capture_output=True,
        text=True,
        check=False,
    )
    return [int(one) for one in found.stdout.split()]


@pytest.mark.parametrize("image_format", [one.pillow_name for one in FORMATS if one is not HEIC])
@pytest.mark.parametrize("with_thumbnail", [True, False])
def test_each_format_gives_the_pixels_that_decoding_here_gives(
    decoders: DecoderPool, image_format: str, with_thumbnail: bool
) -> None:
    data = encoded(picture(3, (300, 200)), image_format)
    crop = None if with_thumbnail else CropBox(top=0.1, left=0.2, bottom=0.9, right=0.7)

    decoded = decoders.decode(
        Task(data=data, is_cheap=False, crop=crop, with_thumbnail=with_thumbnail),
        thumbnail_side=SIDE,
    )

    image = PREPROCESSING.decode(data, crop=crop)
    np.testing.assert_array_equal(decoded.pixels_CHW, PREPROCESSING.pixels(image, crop=crop))
    expected = thumbnail_of(data, image, PREPROCESSING, limits=DEFAULT_LIMITS, max_side=SIDE)
    assert decoded.thumbnail == (expected if with_thumbnail else None)


@pytest.mark.parametrize("name", ["phone", "mirrored", "gray"])
def test_a_heic_picture_gives_the_pixels_that_decoding_here_gives(
    decoders: DecoderPool, name: str
) -> None:
    data = (DATA / f"{name}.heic").read_bytes()

    decoded = decoders.decode(Task(data=data, is_cheap=False), thumbnail_side=SIDE)

    expected = PREPROCESSING.pixels(PREPROCESSING.decode(data))
    np.testing.assert_array_equal(decoded.pixels_CHW, expected)


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (repeated_scans(16_000), "more than 100 scans"),
        (repeated_baseline_scans(1_000), "more than 100 scans"),
        (many_segments(20_000), "more than 10000 segments"),
        (many_chunks(200_000), "more than 100000 chunks"),
        (inflating_texts(100, b"iCCP"), "more than 4 colour profiles"),
    ],
    ids=["scans", "baseline-scans", "segments", "chunks", "profiles"],
)
def test_what_has_more_parts_than_pictures_have_is_refused_before_it_is_decoded(
    decoders: DecoderPool, data: bytes, sentence: str
) -> None:
    assert not is_cheap(data)
    with pytest.raises(CostlyImageError, match=sentence):
        decoders.decode(Task(data=data, is_cheap=False), thumbnail_side=SIDE)


@pytest.mark.parametrize(
    "data",
    [
        palette_png(),
        repeated_scans(80),
        many_segments(2_000),
        inflating_texts(30, b"zTXt"),
        inflating_texts(30, b"iTXt"),
        animation("GIF", 100),
        animation("WEBP", 100),
        animation("PNG", 1_000),
        animation("TIFF", 100),
    ],
    ids=["palette", "scans", "segments", "zTXt", "iTXt", "gif", "webp", "apng", "pages"],
)
def test_what_is_large_but_within_the_limits_is_decoded_away_from_the_event_loop(
    decoders: DecoderPool, data: bytes
) -> None:
    assert not is_cheap(data)
    decoded = decoders.decode(Task(data=data, is_cheap=False), thumbnail_side=SIDE)
    expected = PREPROCESSING.pixels(PREPROCESSING.decode(data))
    np.testing.assert_array_equal(decoded.pixels_CHW, expected)


def test_a_process_holds_no_file_but_its_line_and_can_open_none(decoders: DecoderPool) -> None:
    decoders.decode(Task(data=png(1), is_cheap=False), thumbnail_side=SIDE)
    (pid,) = processes()

    targets = {os.readlink(f"/proc/{pid}/fd/{one}") for one in os.listdir(f"/proc/{pid}/fd")}
    limits = Path(f"/proc/{pid}/limits").read_text().splitlines()
    bounds = {line[:26].strip(): line[26:47].strip() for line in limits}

    assert all(one == "/dev/null" or one.startswith(("socket:", "/memfd:")) for one in targets)
    assert (
        bounds["Max open files"] == bounds["Max file size"] == bounds["Max core file size"] == "0"
    )
    assert bounds["Max address space"].isdecimal()
    assert bounds["Max cpu time"].isdecimal()


def test_an_avif_picture_gets_no_thread_for_each_core() -> None:
    """Each has a stack of 8 MiB, and the memory of a process is bounded."""
    script = (
        "from tests.service.inference.test_decoder_pool import *\n"
        "from PIL import AvifImagePlugin\n"
        "PictureDecoder(PREPROCESSING, DEFAULT_LIMITS).prepare()\n"
        "sys.exit(40 + AvifImagePlugin.DEFAULT_MAX_THREADS)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=False)

    assert done.returncode == 41


def test_a_refusal_is_the_one_that_decoding_here_gives(decoders: DecoderPool) -> None:
    for data in (b"no picture", png(1)[:60], png(1)[:-400]):
        with pytest.raises(ImageError) as here:
            PREPROCESSING.decode(data)
        with pytest.raises(type(here.value)) as there:
            decoders.decode(Task(data=data, is_cheap=False), thumbnail_side=SIDE)
        assert str(there.value) == str(here.value)


@pytest.mark.parametrize("blow", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "stopped"])
def test_a_picture_is_decoded_again_where_its_process_was_ended_from_outside(
    blow: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.inference.decoder_pool._wall_s", lambda _: 1.0)
    others = set(processes())
    with started() as own:
        own.decode(Task(data=png(1), is_cheap=False), thumbnail_side=SIDE)
        new = set(processes()) - others
        for pid in new:
            os.kill(pid, blow)

        decoded = own.decode(Task(data=png(2), is_cheap=False), thumbnail_side=SIDE)

        np.testing.assert_array_equal(
            decoded.pixels_CHW, PREPROCESSING.pixels(PREPROCESSING.decode(png(2)))
        )
        assert not set(processes()) & new


def frail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fate: str) -> None:
    """Let processes meet ``fate``, a statement, at pictures that are 77 pixels wide."""
    script = tmp_path / "frail.py"
    script.write_text(
        "import sys, time\n"
        f"sys.path.insert(0, {str(ROOT)!r})\n"
        "from index.decoding import decoder_program\n"
        "from vision.image.preprocessing import Preprocessing\n"
        "pixels = Preprocessing.pixels\n"
        "def frail(self, image, **more):\n"
        f"    if image.width == 77: {fate}\n"
        "    return pixels(self, image, **more)\n"
        "Preprocessing.pixels = frail\n"
        "decoder_program.main(*map(int, sys.argv[1:]))\n"
    )
    monkeypatch.setattr(
        decoder_process, "module_command", lambda _, *fds: [sys.executable, str(script), *fds]
    )


@pytest.mark.parametrize(
    ("fate", "sentence"),
    [
        ("exec('while True: pass')", r"longer than 1\.0 s of processor time"),
        ("bytearray(2**31)", r"more than \d+ MiB of memory"),
        ("time.sleep(60)", "did not end within 1 s, or ended the process"),
        ("__import__('os').kill(__import__('os').getpid(), 11)", "ended the process that did it"),
    ],
    ids=["hangs", "memory", "sleeps", "crashes"],
)
def test_a_picture_that_overruns_is_refused_with_its_limit_and_the_next_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fate: str, sentence: str
) -> None:
    frail(tmp_path, monkeypatch, fate)
    if "while" not in fate:  # that one has the processor's time for its bound
        monkeypatch.setattr("service.inference.decoder_pool._wall_s", lambda _: 1.0)
    else:
        monkeypatch.setattr("service.inference.decoder_pool._wall_s", lambda _: 60.0)
    with started(timeout_s=1) as own:
        with pytest.raises(CostlyImageError, match=sentence):
            own.decode(Task(data=png(1, (77, 30)), is_cheap=False), thumbnail_side=SIDE)
        decoded = own.decode(Task(data=png(2), is_cheap=False), thumbnail_side=SIDE)

    np.testing.assert_array_equal(
        decoded.pixels_CHW, PREPROCESSING.pixels(PREPROCESSING.decode(png(2)))
    )


def test_processes_are_replaced_after_some_pictures_and_end_with_the_service(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("service.inference.decoder_pool.MOST_PICTURES", 2)
    others = set(processes())
    seen = []
    with started() as own:
        for number in range(4):
            own.decode(Task(data=png(number), is_cheap=False), thumbnail_side=SIDE)
            seen.append(set(processes()) - others)

    assert seen[0]
    assert not seen[1]  # the second was its last
    assert len(seen[2]) == 1
    assert seen[2].isdisjoint(seen[0])
    assert set(processes()) == others


def test_pictures_wait_for_memory_before_their_pixels_are_decoded() -> None:
    gate = MemoryLimiter(100 * 2**20)
    own = DecoderPool(PictureDecoder(PREPROCESSING, DEFAULT_LIMITS), gate, timeout_s=10)
    done = threading.Event()

    def decode() -> None:
        own.decode(Task.of(encoded(picture(1, (4000, 4000)), "GIF")), thumbnail_side=SIDE)
        done.set()

    try:
        with gate.passage() as take:
            take(100 * 2**20)
            thread = threading.Thread(target=decode)
            thread.start()
            assert not done.wait(1.5)
        assert done.wait(60)
        thread.join()
        assert gate.taken == 0
    finally:
        own.close()


def test_a_process_ends_with_its_parent_even_where_it_was_stopped(tmp_path: Path) -> None:
    script = (
        "import os, signal\n"
        "from tests.service.inference.test_decoder_pool import *\n"
        "with started() as own:\n"
        "    own.decode(Task(data=png(1), is_cheap=False), thumbnail_side=SIDE)\n"
        "    (pid,) = processes()\n"
        "    os.kill(pid, signal.SIGSTOP)\n"
        "    print(pid, flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=False
    )
    pid = int(done.stdout)

    deadline = time.monotonic() + 10
    while Path(f"/proc/{pid}").exists() and "Z" not in state_of(pid):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def state_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"
