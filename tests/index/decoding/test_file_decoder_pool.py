"""Decoding in processes gives what decoding here gives, whatever becomes of the processes."""

import gc
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from files.module_command import ROOT
from index.decoding import decoder_process
from index.decoding.file_decoder import DecodeResult, FileDecoder, FileToDecode
from index.decoding.file_decoder_pool import ENDED_PROCESS, SLICES_AHEAD, FileDecoderPool
from tests.support.images.pngs import png
from vision.image.limits import DEFAULT_LIMITS
from vision.image.preprocessing import Preprocessing

PREPROCESSING = Preprocessing(size=8, channels=3, mean=(0.5,) * 3, std=(0.5,) * 3)
DECODER = FileDecoder(PREPROCESSING, DEFAULT_LIMITS, 64)


def slices(count: int, *, each: int = 5) -> list[tuple[int, list[FileToDecode]]]:
    """Return slices with a broken picture, and one that is known, in each."""
    made = []
    for number in range(count):
        pictures = [FileToDecode(png(number * each + one, (12, 12))) for one in range(each)]
        pictures[1] = FileToDecode(b"no picture")
        (known,) = DECODER.decode([pictures[3]], np.empty(PREPROCESSING.batch_shape(1), np.uint8))
        pictures[3] = FileToDecode(pictures[3].content, (known.content_sha256,))
        made.append((number, pictures))
    return made


def here(wanted: list[FileToDecode]) -> tuple[list[DecodeResult], bytes]:
    pixels_BCHW = np.empty(PREPROCESSING.batch_shape(len(wanted)), np.uint8)
    results = DECODER.decode(wanted, pixels_BCHW)
    return results, pixels_BCHW[: sum(one.row is not None for one in results)].tobytes()


@pytest.mark.parametrize("count", [0, 1, 2, 12])
def test_slices_come_in_order_with_what_decoding_them_here_gives(count: int) -> None:
    asked = slices(count)
    with FileDecoderPool(DECODER, processes=2) as pool:
        given = [
            (part, (results, pixels.tobytes())) for part, results, pixels in pool.decode(asked)
        ]

    assert given == [(part, here(wanted)) for part, wanted in asked]
    if given:
        results = given[0][1][0]
        assert [one.row for one in results] == [0, None, 1, None, 2]
        assert [one.problem is None for one in results] == [True, False, True, True, True]
        assert [one.thumbnail is None for one in results] == [False, True, False, True, False]


def test_slices_are_read_only_as_far_ahead_as_there_is_room() -> None:
    read = 0

    def coming() -> Iterator[tuple[int, list[FileToDecode]]]:
        nonlocal read
        for one in slices(20, each=4):
            read += 1
            yield one

    with FileDecoderPool(DECODER, processes=2) as pool:
        ahead = [read - part for part, _, _ in pool.decode(coming())]

    assert max(ahead) == 2 * SLICES_AHEAD + 1


def test_a_picture_that_ends_its_process_is_told_and_the_others_are_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deadly = tmp_path / "deadly.png"
    deadly.write_bytes(png(7))
    # The process is one of ours that ends when it meets a file of that name.
    script = tmp_path / "frail.py"
    script.write_text(
        "import os, sys\n"
        f"sys.path.insert(0, {str(ROOT)!r})\n"
        "from index.decoding import decoder_program, file_decoder\n"
        "read = file_decoder.read_content\n"
        "def read_content(content, **more):\n"
        "    if getattr(content, 'name', '') == 'deadly.png': os.kill(os.getpid(), 9)\n"
        "    return read(content, **more)\n"
        "file_decoder.read_content = read_content\n"
        "decoder_program.main(*map(int, sys.argv[1:]))\n"
    )
    monkeypatch.setattr(
        decoder_process, "module_command", lambda _, *fds: [sys.executable, str(script), *fds]
    )
    asked = slices(4)
    asked[2][1][2] = FileToDecode(deadly)

    with FileDecoderPool(DECODER, processes=1) as pool:
        given = [(results, pixels.tobytes()) for _, results, pixels in pool.decode(asked)]

    told = given[2][0][2]
    assert (told.row, told.thumbnail, told.problem) == (None, None, ENDED_PROCESS)
    wanted = asked[2][1]
    others = here([one for one in wanted if one.content != deadly])
    assert [one.content_sha256 for one in given[2][0] if one != told] == [
        one.content_sha256 for one in others[0]
    ]
    assert given[2][1] == others[1]
    assert [given[number] for number in (0, 1, 3)] == [
        here(asked[number][1]) for number in (0, 1, 3)
    ]


def test_processes_that_never_start_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        decoder_process, "module_command", lambda *_: [sys.executable, "-c", "exit(3)"]
    )

    with (
        FileDecoderPool(DECODER, processes=1) as pool,
        pytest.raises(RuntimeError, match="ended with code 3"),
    ):
        list(pool.decode(slices(2)))


def test_an_error_in_the_middle_ends_all_processes_and_closes_what_was_open() -> None:
    gc.collect()  # what earlier tests left open is no concern of this one
    files, others = len(os.listdir("/proc/self/fd")), children_of(os.getpid())

    def interrupted() -> None:
        with FileDecoderPool(DECODER, processes=2) as pool:
            for part, _, _ in pool.decode(slices(12)):
                if part == 1:
                    raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()

    assert children_of(os.getpid()) == others
    gc.collect()  # the error's traceback holds pixels
    assert len(os.listdir("/proc/self/fd")) <= files


def test_nothing_is_left_when_the_parent_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(
        "import sys, time\n"
        f"sys.path.insert(0, {str(ROOT)!r})\n"
        "from tests.index.decoding.test_file_decoder_pool import DECODER, slices\n"
        "from index.decoding.file_decoder_pool import FileDecoderPool\n"
        "with FileDecoderPool(DECODER, processes=2) as pool:\n"
        "    for _ in pool.decode(slices(12)):\n"
        "        print('working', flush=True)\n"
        "        time.sleep(60)\n"
    )
    parent = subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert parent.stdout is not None
    assert parent.stderr is not None
    assert parent.stdout.readline() == b"working\n"
    children = children_of(parent.pid)
    assert len(children) == 2
    for pid in (parent.pid, *children):  # what has a name there would outlive them
        assert "/dev/shm/" not in Path(f"/proc/{pid}/maps").read_text()

    parent.send_signal(signal.SIGKILL)
    parent.wait(timeout=30)
    with parent.stdout, parent.stderr:
        assert parent.stderr.read() == b"", "they end without a word"

    deadline = time.monotonic() + 30
    while any(Path(f"/proc/{pid}").exists() for pid in children) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert [pid for pid in children if Path(f"/proc/{pid}").exists()] == []


def children_of(pid: int) -> list[int]:
    return [
        int(child)
        for path in Path(f"/proc/{pid}/task").glob("*/children")
        for child in path.read_text().split()
    ]
