"""Jobs: rebuilding, tuning, backing up and finding duplicates while a server serves."""

import fcntl
import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from index.gallery import Gallery
from index.maintenance.compaction import SETTING, TARGET
from index.search.index_spec import candidate_specs
from index.store.store import Store
from index.transfer.backup import restore
from service.errors import JobConflictError, UnknownJobError
from service.jobs.records import KEPT, JobRecords
from service.jobs.runner import JobContext, JobRunner
from tests.support.fakes import clustered_vectors
from tests.support.galleries.small_galleries import STORED, write_gallery, write_vectors
from tests.support.images.pngs import png
from tests.support.server.gallery_servers import gallery_server, server_with_folders
from tests.support.server.jobs import ENDED, ended, wait_for
from tests.support.server.servers import Server, running_server

PNG = {"Content-Type": "image/png"}
MANY = 2_000  # items, from 1,000 on a structure is measured


@pytest.fixture(scope="module")
def own(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of this file's own, with a folder for backups; the gallery lies beside its log."""
    with server_with_folders(model, tmp_path_factory.mktemp("jobs")) as server:
        yield server


@pytest.fixture
def client(own: Server) -> Iterator[httpx.Client]:
    with own.client() as client:
        yield client


def begin(client: httpx.Client, kind: str, **parameters: object) -> dict[str, Any]:
    answer = client.post("/v1/jobs", json={"kind": kind, **parameters})
    assert answer.status_code == 202, answer.text
    job: dict[str, Any] = answer.json()
    assert answer.headers["location"] == f"jobs/{job['id']}"
    assert job["kind"] == kind
    return job


def rebuilding(server: Server) -> list[int]:
    """Return the processes that build a structure for the server's workers."""
    return [
        int(pid)
        for worker in server.workers()
        for thread in Path(f"/proc/{worker}/task").iterdir()  # a job's thread started it
        for pid in _words(thread / "children")
        if "index.maintenance.rebuild_process" in " ".join(_words(Path(f"/proc/{pid}/cmdline")))
    ]


def _words(path: Path) -> list[str]:
    try:
        return path.read_text().replace("\0", " ").split()
    except (FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
        return []


def test_rebuilds_fail_no_search_and_no_write_and_tell_their_stages(
    model: Path, tmp_path: Path
) -> None:
    """From scanning to a graph, and from one graph to the next, while all goes on."""
    folder = tmp_path / "gallery"
    vectors = clustered_vectors(MANY, 256, seed=1)
    write_vectors(folder, model, vectors)
    stages: set[str | None] = set()
    with running_server(model, folder, tmp_path / "log") as server, server.client() as client:
        with traffic(server, vectors) as statuses:
            jobs = [
                _watched(client, begin(client, kind, recall=0.9), stages)
                for kind in ("rebuild", "tune", "rebuild")
            ]
        gallery = client.get("/v1/gallery").json()
        assert "lookalike_gallery_generation 3.0" in client.get("/metrics").text

    for generation, job in enumerate(jobs, start=1):
        assert job["state"] == "done", job
        assert job["parameters"] == {"recall": 0.9}
        assert job["created"] <= job["started"] <= job["ended"]
        assert (job["progress"], job["problem"]) == (1, None)
        assert job["result"]["generation"] == generation
        assert job["result"]["count"] >= MANY
        assert job["result"]["recall"] >= 0.9
    assert jobs[0]["result"]["structure"] == "graph"
    assert len(jobs[1]["result"]["trials"]) >= len(candidate_specs(MANY, 256))
    assert gallery["generation"] == 3
    assert gallery["structure"] == jobs[2]["result"]["structure"] == jobs[1]["result"]["structure"]
    assert stages & {"reading", "measuring", "writing"}
    assert len(statuses) > 50
    assert set(statuses) <= {200, 201}
    with Gallery.open(folder, fingerprint=None) as opened:
        assert opened.verify() == []


@contextmanager
def traffic(server: Server, vectors: NDArray[np.float32]) -> Iterator[list[int]]:
    """Search and write on two connections each while the block runs; all statuses are gathered."""
    statuses: list[int] = []
    over = threading.Event()

    def search(lane: int) -> None:
        row = lane
        with server.client() as client:
            while not over.is_set():
                row = (row + 7) % len(vectors)
                is_exact = row % 2 == 0  # others may miss what the graph misses
                body = {"vector": vectors[row].tolist(), "k": 1, "exact": is_exact}
                answer = client.post("/v1/search", json=body)
                statuses.append(answer.status_code)
                (hit,) = answer.json()["hits"]
                assert hit["id"] == f"row-{row}" or not is_exact

    def write(lane: int) -> None:
        number = 0
        with server.client() as client:
            while not over.is_set():
                number += 1
                address = f"/v1/items/lane-{lane}-{number % 5}"
                answer = client.put(address, content=png(number), headers=PNG)
                statuses.append(answer.status_code)
                if number % 5 == 4:
                    statuses.append(client.delete(address).status_code)

    with ThreadPoolExecutor(4) as pool:
        lanes = [pool.submit(work, lane) for work in (search, write) for lane in range(2)]
        try:
            yield statuses
        finally:
            over.set()
        for lane in lanes:
            lane.result()


def _watched(client: httpx.Client, job: dict[str, Any], stages: set[str | None]) -> dict[str, Any]:
    while job["state"] not in ENDED:
        stages.add(job["stage"])
        time.sleep(0.02)
        job = client.get(f"/v1/jobs/{job['id']}").json()
    return job


def test_tuning_says_what_it_chose(client: httpx.Client) -> None:
    job = ended(client, begin(client, "tune")["id"])

    assert job["state"] == "done"
    assert set(job["result"]) == {
        *(
            "generation",
            "seq",
            "count",
            "structure",
            "recall",
            "recall_low",
            "recall_high",
            "note",
            "trials",
        ),
    }


def test_a_cancelled_rebuild_ends_its_process_and_leaves_everything(
    own: Server, client: httpx.Client
) -> None:
    before = client.get("/v1/gallery").json()["generation"]
    job = begin(client, "rebuild")

    asked = client.delete(f"/v1/jobs/{job['id']}")
    last = ended(client, job["id"])

    assert asked.status_code == 202
    assert (last["state"], last["result"], last["problem"]) == ("cancelled", None, None)
    assert rebuilding(own) == []
    assert client.get("/v1/gallery").json()["generation"] == before
    again = client.delete(f"/v1/jobs/{job['id']}")
    assert (again.status_code, again.json()["state"]) == (200, "cancelled")
    assert ended(client, begin(client, "rebuild")["id"])["state"] == "done"


@pytest.mark.parametrize("kind", ["rebuild", "tune"])
def test_a_cancelled_job_leaves_no_recall_to_the_next(
    own: Server, client: httpx.Client, kind: str
) -> None:
    def remembered() -> tuple[str | None, str | None]:
        store = Store.open(own.log.parent / "gallery")
        try:
            return store.setting(TARGET), store.setting(SETTING)
        finally:
            store.close()

    before = remembered()
    job = begin(client, kind, recall=0.5)
    client.delete(f"/v1/jobs/{job['id']}")

    assert ended(client, job["id"])["state"] == "cancelled"
    assert remembered() == before
    refused = client.post("/v1/jobs", json={"kind": "rebuild", "recall": 0.5, "tune": 1})
    assert refused.status_code == 400
    assert remembered() == before


def test_two_jobs_that_would_be_in_each_others_way_conflict(client: httpx.Client) -> None:
    job = begin(client, "rebuild")

    for kind in ("rebuild", "tune"):
        answer = client.post("/v1/jobs", json={"kind": kind})
        assert (answer.status_code, answer.json()["code"]) == (409, "job_conflict")
        assert job["id"] in answer.json()["detail"]
    beside = begin(client, "duplicates", min_score=0.99)

    assert ended(client, beside["id"])["state"] == "done"
    assert ended(client, job["id"])["state"] == "done"


def test_a_rebuild_beside_another_process_that_rebuilds_fails_with_a_sentence(
    own: Server, client: httpx.Client
) -> None:
    ended(client, begin(client, "rebuild")["id"])  # so that the folder is there
    with (own.log.parent / "gallery" / "snapshots" / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        job = ended(client, begin(client, "rebuild")["id"])

    assert job["state"] == "failed"
    assert (job["problem"]["status"], job["problem"]["code"]) == (409, "rebuild_busy")


def test_a_rebuild_whose_process_is_killed_fails_with_a_sentence(
    own: Server, client: httpx.Client
) -> None:
    before = client.get("/v1/gallery").json()["generation"]
    job = begin(client, "rebuild")
    wait_for(lambda: rebuilding(own))
    os.kill(rebuilding(own)[0], signal.SIGKILL)

    last = ended(client, job["id"])

    assert last["state"] == "failed"
    assert (last["problem"]["status"], last["problem"]["code"]) == (503, "rebuild_failed")
    assert client.get("/v1/gallery").json()["generation"] == before


def test_a_backup_is_a_gallery_like_the_one_it_was_made_of(
    own: Server, client: httpx.Client, tmp_path: Path
) -> None:
    job = ended(client, begin(client, "backup", name="monday")["id"])
    backup = own.log.parent / "backups" / "monday"
    taken = client.post("/v1/jobs", json={"kind": "backup", "name": "monday"})

    assert job["state"] == "done", job
    assert job["result"]["name"] == "monday"
    assert job["result"]["bytes"] > 10_000
    assert (taken.status_code, taken.json()["code"]) == (409, "backup_exists")
    restore(backup, tmp_path / "restored", on_progress=lambda _: None)
    original = Gallery.open(own.log.parent / "gallery", fingerprint=None)
    with original, Gallery.open(tmp_path / "restored", fingerprint=None) as restored:
        assert restored.verify() == []
        items = original.page(limit=1000).items
        assert len(items) >= STORED
        assert restored.page(limit=1000).items == items
        for item in items:
            assert np.array_equal(restored.vector(item.id), original.vector(item.id))
            assert restored.thumbnail(item.id) == original.thumbnail(item.id)


def test_duplicates_are_listed_by_content_and_by_nearness(client: httpx.Client) -> None:
    for name in ("twin-a", "twin-b"):
        client.put(f"/v1/items/{name}", content=png(3), headers=PNG)

    found = ended(client, begin(client, "duplicates", min_score=0.9999)["id"])["result"]

    trio = {"item-03", "twin-a", "twin-b"}
    assert trio in [{member["id"] for member in group} for group in found["exact"]]
    assert trio in [{member["id"] for member in group} for group in found["near"]]
    assert found["complete"] is True
    assert found["exact_groups"] == len(found["exact"])
    assert found["near_items"] == sum(map(len, found["near"]))
    for name in ("twin-a", "twin-b"):
        client.delete(f"/v1/items/{name}")


def test_jobs_are_listed_newest_first_without_their_results(client: httpx.Client) -> None:
    first = ended(client, begin(client, "duplicates", min_score=1)["id"])
    second = ended(client, begin(client, "duplicates", min_score=1)["id"])

    jobs = client.get("/v1/jobs").json()["jobs"]

    assert [job["id"] for job in jobs[:2]] == [second["id"], first["id"]]
    assert not any("result" in job for job in jobs)


def test_a_job_whose_process_died_is_failed_after_a_restart(model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "gallery"
    write_gallery(folder, model)
    with running_server(model, folder, tmp_path / "log") as server, server.client() as client:
        job = begin(client, "rebuild")
        wait_for(lambda: client.get(f"/v1/jobs/{job['id']}").json()["state"] == "running")
        server.kill()

    with running_server(model, folder, tmp_path / "log") as server, server.client() as client:
        last = client.get(f"/v1/jobs/{job['id']}").json()
        assert last["state"] == "failed", last
        assert (last["problem"]["status"], last["problem"]["code"]) == (503, "job_interrupted")
        assert last["ended"] is not None
        wait_for(lambda: _is_free(folder / "snapshots" / ".lock"))  # of the process left behind
        job = begin(client, "rebuild")

        assert server.stop() == 0, "a job keeps no server from stopping"
    record = json.loads((folder / "jobs" / f"{job['id']}.json").read_text())
    assert record["state"] in ENDED
    with Gallery.open(folder, fingerprint=None) as gallery:
        assert gallery.verify() == []


def _is_free(path: Path) -> bool:
    if not path.exists():
        return True
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def test_two_workers_share_structures_and_jobs(model: Path, tmp_path: Path) -> None:
    options = ("--workers", "2")
    with gallery_server(model, tmp_path, *options) as server:

        def ask(method: str, path: str, **settings: Any) -> httpx.Response:
            """Send it on a new connection, so that either worker may get it."""
            with server.client() as client:
                answer = client.request(method, path, **settings)
            assert answer.status_code < 400, answer.text
            return answer

        ready = [0]

        def is_ready() -> bool:
            with server.client() as client:
                ready[0] = ready[0] + 1 if client.get("/readyz").status_code == 200 else 0
            return ready[0] >= 20

        wait_for(is_ready, timeout_s=60)
        job = ask("POST", "/v1/jobs", json={"kind": "rebuild"}).json()
        for _ in range(20):
            assert ask("GET", f"/v1/jobs/{job['id']}").json()["id"] == job["id"]
            assert [one["id"] for one in ask("GET", "/v1/jobs").json()["jobs"]] == [job["id"]]
        wait_for(lambda: ask("GET", f"/v1/jobs/{job['id']}").json()["state"] == "done")
        time.sleep(2.5)  # each worker looks once a second
        generations = [ask("GET", "/v1/gallery").json()["generation"] for _ in range(20)]
        assert generations == [1] * 20

        for _ in range(8):  # whichever worker gets which request
            job = ask("POST", "/v1/jobs", json={"kind": "rebuild"}).json()
            ask("DELETE", f"/v1/jobs/{job['id']}")
            wait_for(lambda job=job: _state(server, job["id"]) in ENDED)  # type: ignore[misc]
            assert _state(server, job["id"]) == "cancelled"


def _state(server: Server, job_id: str) -> str:
    with server.client() as client:
        state: str = client.get(f"/v1/jobs/{job_id}").json()["state"]
        return state


class Clock:
    """A clock that moves one second whenever it is read."""

    def __init__(self) -> None:
        self.now = datetime(2026, 1, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        self.now += timedelta(seconds=1)
        return self.now


@contextmanager
def jobs_in(folder: Path) -> Iterator[JobRunner]:
    """Jobs as a worker has them, without a worker."""
    clock = Clock()
    jobs = JobRunner(JobRecords(folder, clock=clock), clock=clock)
    try:
        yield jobs
    finally:
        jobs.close()


def at_once(_: JobContext) -> dict[str, Any]:
    return {}


def until_stopped(context: JobContext) -> dict[str, Any]:
    while True:
        context.set_progress(0.5)
        time.sleep(0.01)


def waited_for(jobs: JobRunner, job_id: str) -> str:
    wait_for(lambda: jobs.records.get(job_id).state in ENDED)
    return jobs.records.get(job_id).state


def test_only_the_newest_hundred_are_remembered(tmp_path: Path) -> None:
    with jobs_in(tmp_path / "jobs") as jobs:
        ids = []
        for _ in range(KEPT + 5):
            ids.append(jobs.start("duplicates", {}, at_once).id)
            waited_for(jobs, ids[-1])

        assert [job.id for job in jobs.records.all()] == ids[: -KEPT - 1 : -1]
        with pytest.raises(UnknownJobError):
            jobs.records.get(ids[0])
        jobs.close()  # the last one's thread has let go of its lock
        assert {path.suffix for path in jobs.records.folder.iterdir()} == {".json", ""}


def test_progress_is_seen_and_another_process_may_cancel(tmp_path: Path) -> None:
    with jobs_in(tmp_path / "jobs") as jobs:
        other = JobRecords(tmp_path / "jobs", clock=Clock())  # as another worker has it
        job = jobs.start("backup", {"name": "a"}, until_stopped)
        wait_for(lambda: other.get(job.id).progress == 0.5)
        with pytest.raises(JobConflictError, match=job.id):
            other.begin("backup", {"name": "b"})

        other.cancel(job.id)

        assert waited_for(jobs, job.id) == "cancelled"
        other.begin("backup", {"name": "b"}).release()


def test_a_job_nobody_holds_is_failed_and_in_nobodys_way(tmp_path: Path) -> None:
    folder = JobRecords(tmp_path / "jobs", clock=Clock())
    lease = folder.begin("rebuild", {})
    lease.save(state="running")
    assert folder.get(lease.job.id).state == "running"
    lease.release()  # as the kernel does when a process ends

    first, second = folder.get(lease.job.id), folder.get(lease.job.id)

    assert first.state == "failed"
    assert first.problem is not None
    assert first.problem["code"] == "job_interrupted"
    assert first == second, "the record itself says so now"
    folder.begin("tune", {}).release()


def test_an_error_nobody_foresaw_is_told_without_its_text(tmp_path: Path) -> None:
    def work(context: JobContext) -> dict[str, Any]:
        context.set_stage("dividing")
        raise ZeroDivisionError("a secret")

    with jobs_in(tmp_path / "jobs") as jobs:
        job_id = jobs.start("tune", {}, work).id
        assert waited_for(jobs, job_id) == "failed"
        job = jobs.records.get(job_id)

    assert job.stage == "dividing"
    assert job.problem is not None
    assert (job.problem["status"], job.problem["code"]) == (500, "internal")
    assert "secret" not in json.dumps(job.problem)


def test_jobs_end_when_the_service_does(tmp_path: Path) -> None:
    with jobs_in(tmp_path / "jobs") as jobs:
        job = jobs.start("duplicates", {}, until_stopped)
        started = time.monotonic()
        jobs.close()

    assert time.monotonic() - started < 5
    last = jobs.records.get(job.id)
    assert last.state == "failed"
    assert last.problem is not None
    assert last.problem["code"] == "job_interrupted"


def test_a_record_that_cannot_be_read_hides_no_other(tmp_path: Path) -> None:
    with jobs_in(tmp_path / "jobs") as jobs:
        sound = jobs.start("tune", {}, at_once).id
        waited_for(jobs, sound)
        (tmp_path / "jobs" / "broken.json").write_text('{"id": ')

        assert [job.id for job in jobs.records.all()] == [sound]
        with pytest.raises(UnknownJobError):
            jobs.records.get("broken")


def test_of_many_that_begin_at_once_one_begins(tmp_path: Path) -> None:
    folder = JobRecords(tmp_path / "jobs", clock=Clock())
    (tmp_path / "jobs").mkdir()
    begun, refused = [], []
    barrier = threading.Barrier(8)

    def begin_one() -> None:
        barrier.wait()
        try:
            begun.append(folder.begin("rebuild", {}))
        except JobConflictError as error:
            refused.append(error)

    threads = [threading.Thread(target=begin_one) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert (len(begun), len(refused)) == (1, 7)
    begun[0].release()
