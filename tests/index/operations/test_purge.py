"""What is left in a gallery's files of items that were deleted: every file is searched for it."""

import json
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from cli.commands import app
from index.errors import DiskFullError, StorageError
from index.gallery import Gallery
from index.items.item import NewItem
from index.items.source_edits import ItemState
from index.operations.purge import purge
from index.store.build_origins import BuildOrigins
from index.transfer.backup import back_up
from tests.support.fakes import unit_vectors
from tests.support.galleries.segments import rebuilt, small_structures
from vision.image.thumbnail import Thumbnail

WIDTH = 8
COUNT = 300
Traces = dict[str, bytes]


def item(number: int, version: int = 0) -> NewItem:
    """Return an item of which every part can be told apart from all others."""
    rng = np.random.default_rng([number, version])
    return NewItem(
        id=f"id-{number:04}-{rng.bytes(8).hex()}" if not version else item(number).id,
        vector_D=unit_vectors(1, WIDTH, seed=number + 10_000 * version)[0],
        label=f"label {rng.bytes(8).hex()}",
        metadata={"secret": f"metadata {rng.bytes(8).hex()}", "price": float(rng.random())},
        # Some fit on the page of their row, and some have pages of their own.
        thumbnail=Thumbnail(
            "image/jpeg", b"\xff\xd8\xff" + rng.bytes(100 if number % 2 else 9_000)
        ),
        content_sha256=rng.bytes(32).hex(),
    )


IDS = [item(number).id for number in range(4)]


def traces(one: NewItem, *, with_id: bool = True) -> Traces:
    """Return what must not be found of an item; of what is long, a part will do."""
    assert one.thumbnail is not None
    found = {
        "label": str(one.label).encode(),
        "metadata": one.metadata["secret"].encode(),
        "content": one.content_sha256.encode(),
        "vector": one.vector_D.tobytes(),
        "half a vector": one.vector_D[: WIDTH // 2].tobytes(),
        "picture": one.thumbnail.data[3:67],
        "end of the picture": one.thumbnail.data[-64:],
    }
    return found | ({"id": one.id.encode()} if with_id else {})


def found_in(folder: Path, wanted: dict[str, Traces]) -> set[tuple[str, str]]:
    """Return (file, part) for every trace in any file below ``folder``.

    Another process reads them: a process that closes a file loses all its locks on it (POSIX), and
    SQLite with them.
    """
    found = set()
    with tempfile.TemporaryDirectory() as place:
        copy = Path(place, "copy")
        subprocess.run(["cp", "-r", str(folder), str(copy)], check=True)
        for path in filter(Path.is_file, copy.rglob("*")):
            data = path.read_bytes()
            found |= {
                (str(path.relative_to(copy)), part)
                for parts in wanted.values()
                for part, trace in parts.items()
                if trace in data
            }
    return found


@pytest.fixture
def gallery(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Gallery]:
    small_structures(monkeypatch)
    with Gallery.create(
        tmp_path / "g", model_name="fake", fingerprint="a1" * 32, width=WIDTH
    ) as gallery:
        monkeypatch.setattr(
            gallery,
            "rebuild",
            lambda **_: (rebuilt(gallery.folder), gallery.adopt_newest_generation())[0],
        )
        for start in range(0, COUNT, 50):
            gallery.put([item(n) for n in range(start, start + 50)])
        rebuilt(gallery.folder)
        rebuilt(gallery.folder)
        assert gallery.adopt_newest_generation()
        yield gallery


def delete_and_replace(gallery: Gallery) -> dict[str, Traces]:
    """Let a third go and another third be replaced, and return what must not be found."""
    gone = {}
    for n in range(0, COUNT, 3):
        gone[f"deleted {n}"] = traces(item(n))
        gone[f"replaced {n + 1}"] = traces(item(n + 1), with_id=False)
        gallery.put([item(n + 1, version=1)])
    gallery.delete([item(n).id for n in range(0, COUNT, 3)])
    return gone


def quiet(_: object) -> None:
    return


def test_nothing_of_what_was_deleted_is_left_after_a_purge(
    gallery: Gallery, tmp_path: Path
) -> None:
    jobs = gallery.folder / "jobs"
    jobs.mkdir()
    listed = {"kind": "duplicates", "state": "done", "result": {"exact": [[item(0).id]]}}
    (jobs / "a.json").write_text(json.dumps(listed))
    conditions = [{"key": "id", "match": item(0).id}]
    named = {"kind": "delete", "state": "done", "parameters": {"filter": {"must": conditions}}}
    (jobs / "c.json").write_text(json.dumps(named))
    refusals = [{"row": 1, "id": item(0).id, "reason": "its id came in an earlier row"}]
    refused = {"kind": "import", "state": "done", "result": {"refusals": refusals}}
    (jobs / "d.json").write_text(json.dumps(refused))
    (jobs / "b.json").write_text(json.dumps({"kind": "backup", "state": "done"}))
    gone = delete_and_replace(gallery)
    before = found_in(gallery.folder, gone)
    assert {"gallery.sqlite-wal", "snapshots/gen-00000002/vectors.f32", "jobs/a.json"} <= {
        name for name, _ in before
    }, "the search of the files finds what is there"

    stages: list[str] = []
    done = purge(gallery, on_stage=stages.append)

    assert found_in(gallery.folder, gone) == set()
    assert (done.seq, done.lists) == (gallery.seq, 3)
    assert stages[-1] == "writing the database anew"
    assert sorted(path.name for path in (gallery.folder / "snapshots").glob("gen-*")) == [
        "gen-00000003"
    ]
    assert [path.name for path in jobs.iterdir()] == ["b.json"]
    back_up(gallery, tmp_path / "backup", on_progress=quiet)
    assert found_in(tmp_path / "backup", gone) == set()

    kept = {f"kept {n}": traces(item(n)) for n in range(2, COUNT, 3)}
    names = {name for name, _ in found_in(gallery.folder, kept)}
    assert names == {"gallery.sqlite", "snapshots/gen-00000003/vectors.f32"}
    assert gallery.verify() == []
    assert gallery.count == COUNT - COUNT // 3


def test_a_gallery_without_a_structure_is_purged_too(tmp_path: Path) -> None:
    with Gallery.create(
        tmp_path / "g", model_name="fake", fingerprint="a1" * 32, width=WIDTH
    ) as gallery:
        gallery.put([item(n) for n in range(10)])
        gallery.delete([item(3).id])

        done = purge(gallery, on_stage=quiet)

        assert found_in(gallery.folder, {"deleted": traces(item(3))}) == set()
        assert done.generations == 0
        assert gallery.verify() == []
        gallery.put([item(3)])
        assert gallery.get(item(3).id).label == item(3).label


def test_what_a_killed_rebuild_left_is_purged_where_there_is_no_structure(
    tmp_path: Path,
) -> None:
    with Gallery.create(
        tmp_path / "g", model_name="fake", fingerprint="a1" * 32, width=WIDTH
    ) as gallery:
        gallery.put([item(n) for n in range(10)])
        half = gallery.folder / "snapshots" / ".gen-00000001.0123abcd"
        half.mkdir(parents=True)
        (half / "vectors.f32").write_bytes(item(3).vector_D.tobytes())
        gallery.delete([item(3).id])

        purge(gallery, on_stage=quiet)

        assert found_in(gallery.folder, {"deleted": traces(item(3))}) == set()


def test_without_room_for_all_of_it_a_purge_begins_nothing(
    gallery: Gallery, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = sorted(path.name for path in (gallery.folder / "snapshots").iterdir())
    monkeypatch.setattr(
        "index.store.vacuum.free_bytes", lambda _: 100_000
    )  # enough for the structure
    stages: list[str] = []

    with pytest.raises(DiskFullError, match=r"anew needs .* are free; nothing was changed"):
        purge(gallery, on_stage=stages.append)

    assert stages == []
    assert sorted(path.name for path in (gallery.folder / "snapshots").iterdir()) == before


def test_what_a_source_said_of_items_that_were_edited_since_is_purged(tmp_path: Path) -> None:
    with Gallery.create(
        tmp_path / "g", model_name="fake", fingerprint="a1" * 32, width=WIDTH
    ) as gallery:
        gallery.put([item(n) for n in range(4)])
        with closing(BuildOrigins(gallery.folder, "photos")) as origins:
            origins.record(
                {
                    one.id: ItemState(one.content_sha256, one.label, dict(one.metadata))
                    for one in map(item, range(4))
                }
            )
            gone = {"replaced": traces(item(1), with_id=False)}
            gallery.put([item(1, version=1)])

            purge(gallery, on_stage=quiet)

            assert found_in(gallery.folder, gone) == set()
            states = {item_id: one.state for item_id, one in origins.find(IDS).items()}
            assert states.pop(item(1).id) is None
            assert states == {
                one.id: ItemState.stored(gallery.get(one.id)) for one in map(item, (0, 2, 3))
            }
            assert list(origins.built_ids()) == sorted(IDS)


def test_while_somebody_reads_an_older_state_a_purge_says_so(
    gallery: Gallery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("index.store.vacuum.BUSY_TIMEOUT_MS", 100)
    with gallery._store.reading() as reader:
        reader.execute("SELECT count(*) FROM items").fetchall()
        gone = delete_and_replace(gallery)
        with pytest.raises(StorageError, match="purge again when it has"):
            purge(gallery, on_stage=quiet)

    purge(gallery, on_stage=quiet)

    assert found_in(gallery.folder, gone) == set()
    assert gallery.verify() == []


def test_a_row_is_overwritten_when_it_is_deleted(tmp_path: Path) -> None:
    """Without a purge, as soon as the write-ahead log is emptied into the database."""
    folder = tmp_path / "g"
    with Gallery.create(folder, model_name="fake", fingerprint="a1" * 32, width=WIDTH) as gallery:
        gallery.put([item(n) for n in range(40)])
        gallery.delete([item(n).id for n in range(0, 40, 2)])

    gone = {f"deleted {n}": traces(item(n)) for n in range(0, 40, 2)}
    pictures = {one: {"picture": parts["picture"]} for one, parts in gone.items()}
    assert found_in(folder, pictures) == set()


def test_the_command_tells_what_it_did(tmp_path: Path) -> None:
    with Gallery.create(
        tmp_path / "g", model_name="fake", fingerprint="a1" * 32, width=WIDTH
    ) as gallery:
        gallery.put([item(n) for n in range(10)])
        gallery.delete([item(3).id])
    run: Callable[..., str] = lambda *words: (  # noqa: E731
        CliRunner().invoke(app, ["index", "purge", str(tmp_path / "g"), *words]).stdout
    )

    assert json.loads(run("--json")) | {"bytes_saved": 0} == {
        **{"seq": 11, "generations": 0, "lists": 0},
        "bytes_saved": 0,
    }
    assert "nothing that was deleted up to operation 11 is left" in run()
