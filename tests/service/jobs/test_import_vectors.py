"""Files of vectors imported by jobs while a server serves: whole, cut short, repeated, bad."""

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from index.gallery import Gallery
from index.transfer.backup import back_up
from index.transfer.export import export_folder
from service.schemas.responses import Job
from tests.support.fakes import unit_vectors
from tests.support.galleries.small_galleries import STORED
from tests.support.server.gallery_servers import server_with_folders
from tests.support.server.jobs import ENDED, ended, wait_for
from tests.support.server.servers import Server

WIDTH = 256
MANY = 5_000
MORE = 20_000  # rows of a file that takes some seconds


@pytest.fixture(scope="module")
def own(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of this file's own; gallery and folder of imports lie beside its log."""
    with server_with_folders(model, tmp_path_factory.mktemp("importing")) as server:
        yield server


@pytest.fixture
def client(own: Server) -> Iterator[httpx.Client]:
    """A client after which nothing that was imported is left."""
    with own.client() as client:
        yield client
        wanted = {"must": [{"key": "label", "match": "imported"}]}
        job = client.post("/v1/jobs", json={"kind": "delete", "filter": wanted}).json()
        assert ended(client, job["id"])["state"] == "done"


@pytest.fixture
def folder(own: Server) -> Path:
    return own.log.parent / "imports"


def begin(client: httpx.Client, source: str, **more: object) -> str:
    answer = client.post("/v1/jobs", json={"kind": "import", "source": source, **more})
    assert answer.status_code == 202, answer.text
    job_id: str = answer.json()["id"]
    return job_id


def imported(client: httpx.Client, source: str, **more: object) -> dict[str, Any]:
    """Return the job that imported ``source``, which has ended."""
    return ended(client, begin(client, source, **more))


def count(client: httpx.Client) -> int:
    stored: int = client.get("/v1/gallery").json()["count"]
    return stored


def importing(folder: Path) -> list[int]:
    """Return the processes that import into the gallery beside ``folder``."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes()
        except OSError:  # it has ended meanwhile
            continue
        if (
            b"index.transfer.import_process" in words
            and os.fsencode(folder.parent / "gallery") in words
        ):
            found.append(int(process.name))
    return found


def write_jsonl(path: Path, rows: Iterator[dict[str, Any]]) -> None:
    with path.open("w") as file:
        file.writelines(f"{json.dumps(row)}\n" for row in rows)


@pytest.fixture(scope="module")
def long_file(own: Server) -> str:
    """A file of which an import takes some seconds."""
    corners = [np.eye(1, WIDTH, n, dtype=np.int64)[0].tolist() for n in range(WIDTH)]
    rows = (
        {"id": f"long-{row}", "vector": corners[row % WIDTH], "label": "imported"}
        for row in range(MORE)
    )
    write_jsonl(own.log.parent / "imports" / "long.jsonl", rows)
    return "long.jsonl"


def test_many_vectors_are_imported_beside_searches_and_importing_them_again_changes_nothing(
    client: httpx.Client, folder: Path
) -> None:
    vectors_ND = unit_vectors(MANY, WIDTH, seed=1)
    columns = {
        "id": [f"many-{row}" for row in range(MANY)],
        "vector": pa.FixedSizeListArray.from_arrays(vectors_ND.ravel(), WIDTH),
        "label": ["imported"] * MANY,
        "metadata": [json.dumps({"row": row, "third": row % 3 == 0}) for row in range(MANY)],
    }
    parquet.write_table(pa.table(columns), folder / "many.parquet")
    before = count(client)

    job_id = begin(client, "many.parquet")
    answers, shares = [], set()
    while (job := client.get(f"/v1/jobs/{job_id}").json())["state"] not in ENDED:
        answers.append(client.post("/v1/search", json={"id": "item-00", "k": 1}))
        shares.add(job["progress"])
    again = imported(client, "many.parquet")

    assert job["state"] == "done", job
    assert (job["stage"], job["parameters"]["source"]) == ("importing", "many.parquet")
    result = job["result"]
    assert (result["added"], result["refused"], result["refusals"]) == (MANY, 0, [])
    assert result["count"] == count(client) == before + MANY
    assert shares <= {None, *[share for share in shares if share and 0 <= share <= 1]}
    assert [answer.json()["hits"][0]["id"] for answer in answers] == ["item-00"] * len(answers)
    for row in (0, 777, MANY - 1):
        query = {"vector": vectors_ND[row].tolist(), "k": 1}
        (hit,) = client.post("/v1/search", json=query).json()["hits"]
        assert (hit["id"], hit["label"]) == (f"many-{row}", "imported")
        assert hit["metadata"] == {"row": row, "third": row % 3 == 0}
    thirds = {"must": [{"key": "third", "match": True}]}
    assert client.post("/v1/facets", json={"filter": thirds}).json()["count"] == 1_667
    assert again["state"] == "done", again
    assert (again["result"]["added"], again["result"]["unchanged"]) == (0, MANY)


def test_an_import_that_was_cancelled_keeps_its_parts_and_goes_on_from_there(
    client: httpx.Client, folder: Path, long_file: str
) -> None:
    before = count(client)
    job_id = begin(client, long_file)
    wait_for(lambda: count(client) > before)

    assert client.delete(f"/v1/jobs/{job_id}").status_code == 202
    job = ended(client, job_id)

    assert (job["state"], job["result"], job["problem"]) == ("cancelled", None, None)
    assert importing(folder) == []
    kept = count(client) - before
    assert 0 < kept < MORE
    assert kept % 1_000 == 0, "a part is there as a whole, or not at all"
    rest = imported(client, long_file)
    assert (rest["result"]["added"], rest["result"]["unchanged"]) == (MORE - kept, kept)
    assert rest["progress"] == 1


def test_an_import_whose_process_is_killed_says_that_it_can_be_repeated(
    client: httpx.Client, folder: Path, long_file: str
) -> None:
    before = count(client)
    job_id = begin(client, long_file)
    wait_for(lambda: count(client) > before)
    os.kill(importing(folder)[0], signal.SIGKILL)

    job = ended(client, job_id)

    assert job["state"] == "failed"
    assert (job["problem"]["status"], job["problem"]["code"]) == (503, "job_interrupted")
    assert "goes on where it was" in job["problem"]["detail"]
    assert client.get("/readyz").status_code == 200


def test_an_import_whose_worker_is_killed_ends_with_it_and_is_repeated(
    own: Server, client: httpx.Client, folder: Path, long_file: str
) -> None:
    before = count(client)
    job_id = begin(client, long_file)
    wait_for(lambda: count(client) > before)
    conflict = client.post("/v1/jobs", json={"kind": "import", "source": long_file})
    assert (conflict.status_code, conflict.json()["code"]) == (409, "job_conflict")

    (worker,) = own.workers()
    own.kill_worker(worker)

    with own.client() as later:
        job = ended(later, job_id)
        assert job["state"] == "failed"
        assert (job["problem"]["status"], job["problem"]["code"]) == (503, "job_interrupted")
        wait_for(lambda: importing(folder) == [])
        kept = count(later) - before
        assert 0 < kept < MORE
        rest = imported(later, long_file)["result"]
        assert (rest["added"], rest["unchanged"]) == (MORE - kept, kept)


def test_rows_that_cannot_be_stored_are_listed_with_their_numbers(
    client: httpx.Client, folder: Path
) -> None:
    good = unit_vectors(1, WIDTH, seed=7)[0].tolist()
    rows: list[dict[str, Any]] = [
        {"id": "bad-1", "vector": good, "label": "imported"},
        {"id": "bad-2", "vector": good[1:]},
        {"id": "bad-3", "vector": [float("nan"), *good[1:]]},
        {"id": "bad-4", "vector": [2 * number for number in good]},
        {"id": "bad-1", "vector": good, "label": "imported"},
        {"id": "x" * 257, "vector": good},
        {"id": "a/b", "vector": good},
        {"vector": good},
        {"id": "bad-9", "vector": "no list"},
        {"id": "bad-10", "vector": good, "metadata": {"n": 2**64}},
        {"id": "bad-11", "vector": good, "label": "imported"},
    ]
    write_jsonl(folder / "bad.jsonl", iter(rows))

    job = imported(client, "bad.jsonl")

    assert job["state"] == "done", job
    result = job["result"]
    assert (result["added"], result["refused"]) == (2, 9)
    assert [one["row"] for one in result["refusals"]] == [*range(2, 11)]
    reasons = [one["reason"] for one in result["refusals"]]
    for reason, sentence in zip(
        reasons,
        (
            "its vector has 255 numbers, not 256",
            "its vector has numbers that are not finite",
            "its vector has the length 2, not 1",
            "its id came in an earlier row",
            "at most 256 bytes",
            "no '/'",
            "an id is text",
            "its vector is not a list of numbers",
            "64 bits",
        ),
        strict=True,
    ):
        assert sentence in reason
    assert result["refusals"][4]["id"] == "x" * 256, "cut"
    scaled = imported(client, "bad.jsonl", normalize=True)["result"]
    assert (scaled["added"], scaled["unchanged"], scaled["refused"]) == (1, 2, 8)
    client.delete("/v1/items/bad-4")


def test_of_many_refusals_the_first_hundred_are_listed(client: httpx.Client, folder: Path) -> None:
    np.save(folder / "narrow.npy", unit_vectors(MANY, 8, seed=1))
    (folder / "narrow.txt").write_text("\n".join(f"n-{row}" for row in range(MANY)))

    result = imported(client, "narrow.npy", ids="narrow.txt")["result"]

    assert (result["added"], result["refused"], len(result["refusals"])) == (0, MANY, 100)


def test_files_beside_one_another_and_exports_are_imported(
    own: Server, client: httpx.Client, folder: Path
) -> None:
    np.save(folder / "two.npy", unit_vectors(2, WIDTH, seed=21))
    (folder / "two.txt").write_text("two-1\ntwo-2\n")
    (folder / "a table.csv").write_text("id,label\ntwo-1,imported\ntwo-2,imported\n")
    with Gallery.open(own.log.parent / "gallery", fingerprint=None) as gallery:
        export_folder(gallery, folder / "exported", table="jsonl", on_progress=lambda _: None)
        back_up(gallery, folder / "copy", on_progress=lambda _: None)
    (folder / "copy" / "snapshots").mkdir(exist_ok=True)  # as a gallery has that was in use

    bare = imported(client, "two.npy", ids="two.txt")["result"]
    labelled = imported(client, "a table.csv", vectors="two.npy")["result"]
    exported = imported(client, "exported")["result"]
    client.delete("/v1/items/item-07")
    copied = imported(client, "copy")["result"]

    assert bare["added"] == 2
    assert (labelled["replaced"], labelled["left_as_stored"]["picture"]) == (2, 2)
    assert exported["unchanged"] == STORED
    assert (copied["added"], copied["unchanged"]) == (1, STORED - 1)
    assert client.get("/v1/items/item-07/image").status_code == 200, "its picture came along"
    assert client.get("/v1/items/two-2").json()["label"] == "imported"


def lay_out_bad_files(folder: Path) -> None:
    vector = json.dumps(unit_vectors(1, WIDTH, seed=3)[0].tolist())
    (folder / "no-ids.csv").write_text("name,vector\n")
    (folder / "cut.jsonl").write_text(
        f'{{"id": "cut-1", "vector": {vector}, "label": "imported"}}\n{{"id": "cut-2", "vec'
    )
    (folder / "picture.png").write_bytes(b"\x89PNG\r\n")
    (folder / "no-numbers.npy").write_bytes(b"\x80\x04K\x01.")  # a pickle
    (folder / "bare.npy").write_bytes(b"")
    np.save(folder / "uneven.npy", unit_vectors(3, WIDTH, seed=1))
    (folder / "uneven.txt").write_text("u-1\n")
    (folder / "damaged.parquet").write_bytes(b"PAR1 and no more PAR1")
    (folder / "torn").mkdir()
    (folder / "torn" / "gallery.sqlite").write_bytes(b"no database")
    (folder / "empty-folder").mkdir()


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        ({"source": "no-ids.csv"}, "has no column id; it has 'name', 'vector'"),
        ({"source": "cut.jsonl"}, "cut.jsonl, line 2: "),
        ({"source": "picture.png"}, "picture.png is not a gallery, export, .parquet"),
        ({"source": "no-numbers.npy", "ids": "uneven.txt"}, "it is not a .npy file of numbers"),
        ({"source": "uneven.npy"}, "name the file of their ids"),
        ({"source": "uneven.npy", "ids": "uneven.txt"}, "3 vectors, uneven.txt has 1 ids"),
        ({"source": "no-ids.csv", "vectors": "bare.npy"}, "has no column id"),
        ({"source": "damaged.parquet"}, "cannot read damaged.parquet"),
        ({"source": "empty-folder"}, "neither a gallery nor an export"),
        ({"source": "foreign"}, "not of the model given"),
        ({"source": "torn"}, "gallery.sqlite"),
    ],
)
def test_a_file_that_cannot_be_read_fails_its_job_with_a_sentence(
    client: httpx.Client, folder: Path, names: dict[str, str], sentence: str
) -> None:
    if not (folder / "empty-folder").exists():
        lay_out_bad_files(folder)
        Gallery.create(
            folder / "foreign", model_name="other", fingerprint="b2" * 32, width=WIDTH
        ).close()
    before = count(client)

    job = imported(client, **names)  # type: ignore[arg-type]

    assert job["state"] == "failed"
    assert (job["problem"]["status"], job["problem"]["code"]) == (422, "invalid_source")
    assert sentence in job["problem"]["detail"]
    assert str(folder) not in json.dumps(job)
    assert count(client) == before


@pytest.mark.parametrize(
    ("names", "code", "sentence"),
    [
        ({"source": "../gallery"}, "invalid_parameter", "not a path"),
        ({"source": ".."}, "invalid_parameter", "not a path"),
        ({"source": "."}, "invalid_parameter", "not a path"),
        ({"source": ""}, "invalid_parameter", "not a path"),
        ({"source": "/etc/passwd"}, "invalid_parameter", "not a path"),
        ({"source": "a\0.csv"}, "invalid_parameter", "not a path"),
        ({"source": "link/items.csv"}, "invalid_parameter", "not a path"),
        ({"source": "sound.npy", "ids": "../../log.txt"}, "invalid_parameter", "ids is the name"),
        ({"source": "sound.csv", "vectors": "/v.npy"}, "invalid_parameter", "vectors is the name"),
        ({"source": "link.csv"}, "invalid_source", "symbolic link"),
        ({"source": "link"}, "invalid_source", "symbolic link"),
        ({"source": "sound.npy", "ids": "link.csv"}, "invalid_source", "symbolic link"),
        ({"source": "pipe.jsonl"}, "invalid_source", "symbolic link or something else"),
        ({"source": "with-link"}, "invalid_source", "has a symbolic link or something else in it"),
        ({"source": "missing.csv"}, "invalid_source", "has no 'missing.csv'"),
        ({"source": "x" * 5_000}, "invalid_source", "has no 'xxx"),
        ({"source": "sound.npy", "ids": "missing.txt"}, "invalid_source", "has no 'missing.txt'"),
        ({"source": 7}, "invalid_parameter", "source cannot be used"),
        ({"source": None}, "invalid_parameter", "source cannot be used"),
        ({"source": "sound.csv", "normalize": 1}, "invalid_parameter", "true or false"),
        ({}, "invalid_json", "'source' is missing"),
        ({"source": "sound.csv", "path": "x"}, "unexpected_field", "'path'"),
    ],
)
def test_nothing_but_files_of_the_folder_is_opened(
    client: httpx.Client, folder: Path, names: dict[str, object], code: str, sentence: str
) -> None:
    if not (folder / "with-link").exists():
        (folder / "sound.csv").write_text("id,vector\n")
        np.save(folder / "sound.npy", unit_vectors(1, WIDTH, seed=1))
        (folder / "link.csv").symlink_to("/etc/passwd")
        (folder / "link").symlink_to("/etc")
        os.mkfifo(folder / "pipe.jsonl")
        (folder / "with-link").mkdir()
        (folder / "with-link" / "vectors.npy").symlink_to(folder / "sound.npy")

    answer = client.post("/v1/jobs", json={"kind": "import", **names})

    assert answer.status_code in (400, 422)
    assert answer.json()["code"] == code, answer.text
    assert sentence in answer.json()["detail"]
    assert str(folder) not in answer.text


def test_a_record_of_an_import_is_a_record_as_all_are(own: Server, client: httpx.Client) -> None:
    (own.log.parent / "imports" / "none.csv").write_text("id,vector\n")

    job = imported(client, "none.csv")

    assert Job.model_validate({name: job[name] for name in Job.model_fields}).kind == "import"
    assert (job["state"], job["result"]["added"]) == ("done", 0)
