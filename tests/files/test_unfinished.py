"""What a writer that was killed leaves: the next one removes it, and nothing of anybody else."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from files.durable import replace_file
from files.unfinished import sweep, unfinished
from index.gallery import Gallery
from index.transfer.backup import back_up
from tests.support.crashes.crash_worker_main import WIDTH, item_of
from tests.support.paths import ROOT

PROGRAM = """
import os, sys
from pathlib import Path
kind, place = sys.argv[1], Path(sys.argv[2])
def end(*_, **__):
    os.kill(os.getpid(), 9)
if kind == "file":
    import files.durable as module
    module.sync_folder = end
    module.write_bytes = lambda path, pieces: (path.write_bytes(*pieces), end())
    module.replace_file(place / "report.json", b"{}")
elif kind == "gallery":
    import index.store.create as module
    module.sync_folder = end
    from index.gallery import Gallery
    Gallery.create(place / "new", model_name="fake", fingerprint="a1" * 32, width=8)
elif kind == "model":
    import vision.networks.saved_model as module
    module.sync_folder = end
    from tests.support.models import write_model
    write_model(place / "model")
else:
    from index.gallery import Gallery
    with Gallery.open(place / "g", fingerprint=None) as gallery:
        if kind == "backup":
            from index.transfer.backup import back_up
            back_up(gallery, place / "copy", on_progress=lambda share: share > 0.5 and end())
        else:
            from index.transfer.export import export_folder
            export_folder(gallery, place / "out", table="csv", on_progress=end)
"""


def leftovers(place: Path) -> list[str]:
    return [path.name for path in place.iterdir() if path.name.endswith(".unfinished")]


@pytest.mark.parametrize("kind", ["file", "gallery", "model", "backup", "export"])
def test_what_a_killed_writer_left_is_gone_with_the_next_write_in_its_place(
    tmp_path: Path, kind: str
) -> None:
    with Gallery.create(
        tmp_path / "g", model_name="fake", fingerprint="a1" * 32, width=WIDTH
    ) as gallery:
        gallery.put([item_of(f"i{n}", n) for n in range(20)])
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, kind, str(tmp_path)], cwd=ROOT, check=False
    )
    assert done.returncode == -signal.SIGKILL
    assert len(leftovers(tmp_path)) == 1

    replace_file(tmp_path / "another.json", b"{}")

    assert sorted(path.name for path in tmp_path.iterdir()) == ["another.json", "g"]


def test_what_a_living_writer_is_at_stays(tmp_path: Path) -> None:
    with unfinished(tmp_path / "a") as first, unfinished(tmp_path / "a") as second:
        (first / "half").write_text("x")
        sweep(tmp_path)
        assert first.is_dir()
        assert second.is_dir()
        code = f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
        code += "from pathlib import Path; from files.unfinished import sweep; sweep(Path())"
        subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
        assert (first / "half").exists()
    assert list(tmp_path.iterdir()) == []


def test_nothing_but_such_folders_is_removed(tmp_path: Path) -> None:
    names = [".a.0123abcd", ".a.tmp", "a.unfinished", ".a.0123abcd.unfinished.bak", ".hidden"]
    for name in names:
        (tmp_path / name).mkdir()
    (tmp_path / ".a.0123abcd.unfinished").write_text("a file is nobody's folder")

    sweep(tmp_path)
    sweep(tmp_path / "nowhere")

    assert sorted(os.listdir(tmp_path)) == sorted([*names, ".a.0123abcd.unfinished"])


def test_backups_at_the_same_time_leave_each_other_alone(tmp_path: Path) -> None:
    with Gallery.create(
        tmp_path / "g", model_name="fake", fingerprint="a1" * 32, width=WIDTH
    ) as gallery:
        gallery.put([item_of(f"i{n}", n) for n in range(20)])

        def another(share: float) -> None:
            if not (tmp_path / "inner").exists():
                back_up(gallery, tmp_path / "inner", on_progress=lambda _: None)

        back_up(gallery, tmp_path / "outer", on_progress=another)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["g", "inner", "outer"]


def test_a_file_whose_folder_was_removed_does_not_bring_it_back(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        replace_file(tmp_path / "gone" / "record.json", b"{}")

    assert list(tmp_path.iterdir()) == []
