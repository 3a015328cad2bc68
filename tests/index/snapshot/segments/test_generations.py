"""Generations on disk: written whole, numbered, pruned, verified, and fitting the database."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from files.durable import FileDigest, read_digest, sync_folder, write_bytes
from index.errors import GenerationError, VectorIndexError
from index.gallery import Gallery
from index.maintenance.compaction import compact
from index.snapshot.recovery import load, load_on
from index.snapshot.segments.generation_manifest import decode_manifest, encode_manifest
from index.snapshot.segments.generations import Generations
from index.snapshot.segments.immutable_segment import ImmutableSegment
from index.store.store import Store
from tests.support.crashes.crash_harness import rebuild
from tests.support.crashes.crash_worker_main import WIDTH, item_of
from tests.support.fakes import unit_vectors

ITEMS = 60


def make(folder: Path) -> None:
    with Gallery.create(folder, model_name="fake", fingerprint="a1" * 32, width=WIDTH) as gallery:
        gallery.put([item_of(f"i{n}", n) for n in range(ITEMS)])


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """Of a gallery of 60 items without generations."""
    make(tmp_path / "g")
    store = Store.open(tmp_path / "g")
    yield store
    store.close()


def compacted(store: Store) -> Generations:
    generations = Generations.of(store)
    compact(store, generations, on_stage=lambda _: None)
    return generations


def put(store: Store, *versions: int) -> None:
    store.put([item_of(f"v{version}", version) for version in versions], upsert=True, created="")


def fail() -> None:
    raise RuntimeError


def test_a_file_is_written_whole_and_its_facts_are_told(tmp_path: Path) -> None:
    facts = write_bytes(tmp_path / "a", [b"abc", memoryview(b"defg"), b""])

    assert (tmp_path / "a").read_bytes() == b"abcdefg"
    assert facts == read_digest(tmp_path / "a") == FileDigest(7, 0x312A6AA6)


def test_a_file_that_is_there_already_is_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("mine")

    with pytest.raises(FileExistsError):
        write_bytes(tmp_path / "a", [b"abc"])

    assert (tmp_path / "a").read_text() == "mine"


def test_syncing_a_folder_that_is_none_says_so(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("mine")

    with pytest.raises(NotADirectoryError):
        sync_folder(tmp_path / "a")


def test_the_newest_two_generations_are_kept_and_are_numbered_on(store: Store) -> None:
    for _ in range(4):
        generations = compacted(store)

    assert generations.numbers() == [4, 3]
    assert sorted(path.name for path in generations.folder.iterdir()) == [
        ".lock",
        "gen-00000003",
        "gen-00000004",
    ]


def test_what_killed_writers_left_is_pruned_by_the_next(store: Store) -> None:
    generations = compacted(store)
    unfinished = generations.folder / ".gen-00000002.0123abcd"
    shutil.copytree(generations.folder / "gen-00000001", unfinished)

    assert generations.numbers() == [1]
    compacted(store)

    assert generations.numbers() == [2, 1]
    assert not unfinished.exists()


def test_a_pruning_that_is_killed_leaves_no_half_a_generation_under_its_name(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(2):
        compacted(store)

    def killed(path: Path, *, ignore_errors: bool = False) -> None:
        if ignore_errors:
            return  # not the pruning yet
        (path / "manifest.json").unlink(missing_ok=True)
        raise KeyboardInterrupt

    monkeypatch.setattr("index.snapshot.segments.generations.shutil.rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        compacted(store)
    monkeypatch.undo()

    generations = Generations.of(store)
    assert generations.numbers() == [3, 2]
    assert generations.problems(last_seq=store.last_seq) == []
    compacted(store)
    assert len(list(generations.folder.iterdir())) == 3


def test_verify_does_not_miss_a_generation_that_is_pruned_while_it_reads(store: Store) -> None:
    for _ in range(2):
        generations = compacted(store)

    class Slow(Generations):
        def load(self, number: int, *, last_seq: int) -> ImmutableSegment:
            if number == 1:
                compacted(store)  # another process prunes it
            return super().load(number, last_seq=last_seq)

    assert Slow.of(store).problems(last_seq=store.last_seq) == []
    assert generations.numbers() == [3, 2]


def test_names_that_are_no_numbers_are_nobodys_generations(store: Store) -> None:
    generations = compacted(store)
    for name in ("gen-", "gen-old", "gen-1_0", "gen-00000001.bak", "gen-1"):
        (generations.folder / name).mkdir()

    assert generations.numbers() == [1]
    compacted(store)

    assert generations.numbers() == [2, 1]
    assert (generations.folder / "gen-old").is_dir()


def test_two_processes_cannot_write_generations_at_once(store: Store) -> None:
    generations = Generations.of(store)

    with generations.writing(), pytest.raises(BlockingIOError):
        compacted(store)

    assert compacted(store).numbers() == [1]


def test_a_generation_holds_everything_up_to_its_operation(store: Store) -> None:
    base = compacted(store).load(1, last_seq=store.last_seq())

    assert (base.generation, base.seq, len(base)) == (1, ITEMS, ITEMS)
    _, keys_N, vectors_ND = store.load()
    np.testing.assert_array_equal(base.keys_N, keys_N)
    np.testing.assert_array_equal(base.matrix.rows_ND, vectors_ND)


def test_an_empty_gallery_has_generations_too(tmp_path: Path) -> None:
    folder = tmp_path / "g"
    Gallery.create(folder, model_name="fake", fingerprint="a1" * 32, width=WIDTH).close()

    rebuild(folder)

    with Gallery.open(folder, fingerprint=None) as gallery:
        assert (gallery.count, gallery.info().generation, gallery.verify()) == (0, 1, [])
        gallery.put([item_of("a", 1)])
        query = item_of("a", 1).vector_D[np.newaxis]
        assert [hit.id for hit in gallery.search(query, k=5).hits[0]] == ["a"]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"format": 2}, "its format is 2, not 1"),
        ({"database_id": "another"}, "another gallery or model"),
        ({"fingerprint": "b2" * 32}, "another gallery or model"),
        ({"seq": ITEMS + 1}, f"it is of operation {ITEMS + 1}, the database of {ITEMS}"),
        ({"count": ITEMS - 1}, f"it has {ITEMS} keys, not {ITEMS - 1}"),
        ({"files": {}}, "it lists the files"),
        ({"plan": {"kind": "exact", "new": 1}}, "unexpected keyword"),
    ],
)
def test_a_manifest_with_a_right_checksum_that_does_not_fit_is_refused(
    store: Store, change: dict[str, object], sentence: str
) -> None:
    generations = compacted(store)
    path = generations.folder / "gen-00000001" / "manifest.json"
    path.write_bytes(encode_manifest(decode_manifest(path.read_bytes()) | change))

    with pytest.raises(GenerationError, match=sentence):
        generations.load(1, last_seq=store.last_seq())
    assert generations.problems(last_seq=store.last_seq)
    assert load(store, generations).snapshot.count == ITEMS


def test_a_manifest_changed_by_hand_is_refused(store: Store) -> None:
    generations = compacted(store)
    path = generations.folder / "gen-00000001" / "manifest.json"
    document = json.loads(path.read_bytes())
    document["manifest"]["seq"] = 3
    path.write_text(json.dumps(document))

    with pytest.raises(GenerationError, match="its manifest was changed"):
        generations.load(1, last_seq=store.last_seq())


def test_the_log_is_cut_as_far_as_the_oldest_generation_that_can_be_read(store: Store) -> None:
    generations = compacted(store)
    assert store.log_start() == generations.oldest_seq() == ITEMS
    put(store, 1_000)

    compacted(store)
    assert store.log_start() == generations.oldest_seq() == ITEMS

    compacted(store)
    assert store.log_start() == generations.oldest_seq() == ITEMS + 1


def test_what_came_and_went_since_a_generation_is_added_to_it(store: Store) -> None:
    generations = compacted(store)
    put(store, 1_000, 1_001)
    store.delete(["i3", "v1000"])

    snapshot = load(store, generations).snapshot

    assert snapshot.immutable is not None
    assert snapshot.immutable.tombstones == 1
    assert (snapshot.count, snapshot.seq) == (ITEMS, store.last_seq())
    found, _ = snapshot.search(unit_vectors(1, WIDTH, seed=0), k=2 * ITEMS, exact=True)[0]
    assert sorted(found.tolist()) == store.load()[1].tolist()


def test_a_base_that_lacks_stored_items_or_has_other_vectors_is_refused(store: Store) -> None:
    generations = compacted(store)
    base = generations.load(1, last_seq=store.last_seq())
    with store.writing() as writer:
        writer.execute("UPDATE vectors SET crc32 = 1 WHERE key = 7")
    with pytest.raises(GenerationError, match="holds another vector of 7"):
        load_on(store, base)

    with store.writing() as writer:
        writer.execute(
            "INSERT INTO items (key, id, metadata, content_sha256, created, seq) "
            "VALUES (0, 'before all', '{}', '', '', 0)"
        )
    with pytest.raises(GenerationError, match="lacks items that are stored"):
        load_on(store, base)


def test_a_generation_that_the_database_does_not_know_is_refused(store: Store) -> None:
    generations = compacted(store)
    for record in ("[]", "[[1, 59]]", "no JSON", "[1]", "{}"):
        store.set_setting("generations", record)

        with pytest.raises(GenerationError, match="was not made of this database"):
            load_on(store, generations.load(1, last_seq=store.last_seq()))
        assert load(store, generations).snapshot.immutable is None


def test_attempts_that_fail_do_not_make_the_database_forget_its_generations(store: Store) -> None:
    generations = compacted(store)
    for _ in range(10):
        with pytest.raises(RuntimeError):
            compact(store, generations, on_stage=lambda _: None, before_commit=fail)

    assert generations.numbers() == [1]
    assert load(store, generations).snapshot.immutable is not None
    assert len(json.loads(store.setting("generations") or "")) == 1


def test_a_file_where_the_generations_should_be_leaves_the_database(tmp_path: Path) -> None:
    make(tmp_path / "g")
    (tmp_path / "g" / "snapshots").write_text("in the way")

    with Gallery.open(tmp_path / "g", fingerprint=None) as gallery:
        query = item_of("i5", 5).vector_D[np.newaxis]
        assert gallery.search(query, k=1).hits[0][0].id == "i5"
        assert gallery.verify() == []
        with pytest.raises(VectorIndexError, match=r"it is as it was: .*snapshots'$"):
            gallery.rebuild()
        assert gallery.count == ITEMS
