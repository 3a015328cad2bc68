"""The service keeps what /openapi.json says: schemathesis looks for a request that differs."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.project.test_docs import write_shop
from tests.support.server.gallery_servers import server_with_folders
from tests.support.server.servers import Server, clean_environment

WIDTH = 256  # of the model's vectors
# They run in the form that tests/support/server/schemathesis_hooks.py gives them, which says why.
NARROWED = "use_after_free,ensure_resource_availability"


@pytest.fixture(scope="module")
def own_server(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of its own, because items are stored and deleted as it comes."""
    with server_with_folders(model, tmp_path_factory.mktemp("schema")) as running:
        write_shop(running.log.parent / "imports", WIDTH)
        yield running


def run_schemathesis(server: Server, folder: Path, *, examples: int, seed: int) -> str:
    """Return what schemathesis prints; its exit code must be 0."""
    done = subprocess.run(
        [
            *(str(Path(sys.executable).with_name("st")), "run", f"{server.url}/openapi.json"),
            *("--checks", "all", "--exclude-checks", NARROWED, "--seed", str(seed)),
            *("--max-examples", str(examples), "--phases", "examples,coverage,fuzzing,stateful"),
            *("--suppress-health-check", "all", "--no-shrink", "--no-color"),
        ],
        cwd=folder,
        env=clean_environment(SCHEMATHESIS_HOOKS="tests.support.server.schemathesis_hooks"),
        capture_output=True,
        text=True,
        timeout=1800,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    return done.stdout


def test_no_answer_differs_from_the_document(own_server: Server, tmp_path: Path) -> None:
    printed = run_schemathesis(own_server, tmp_path, examples=5, seed=1)

    assert "23 selected / 23 total" in printed
    assert own_server.workers()


@pytest.mark.schema
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_no_answer_of_many_differs_from_the_document(
    own_server: Server, tmp_path: Path, seed: int
) -> None:
    run_schemathesis(own_server, tmp_path, examples=100, seed=seed)


def test_a_service_that_differs_from_its_document_is_found(
    own_server: Server, tmp_path: Path
) -> None:
    with pytest.raises(AssertionError, match="Undocumented"):
        run_against_a_wrong_document(own_server, tmp_path)


def run_against_a_wrong_document(server: Server, folder: Path) -> None:
    """Check the probe against a document that knows no answer of 200."""
    document = folder / "openapi.json"
    document.write_text(
        '{"openapi": "3.1.0", "info": {"title": "x", "version": "1"}, "paths":'
        ' {"/livez": {"get": {"responses": {"201": {"description": "made"}}}}}}'
    )
    done = subprocess.run(
        [
            *(str(Path(sys.executable).with_name("st")), "run", str(document)),
            *("--url", server.url, "--checks", "all", "--max-examples", "2", "--no-color"),
        ],
        cwd=folder,
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout
