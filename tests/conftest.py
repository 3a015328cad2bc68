"""Fixtures that several files share: a small model, a gallery made with it, and running servers."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from service.security.api_keys import make_key
from tests.support.commands.newcomer import made_once, make_demo, make_photo_model
from tests.support.models import write_model
from tests.support.server.gallery_servers import gallery_server, server_with_folders
from tests.support.server.servers import Server, StrictServer

HERE = Path(__file__).parent

# Files that take long, the longest first: begun last, one would leave all other processes idle.
# Those that wait for the same folder stand apart.
LONG = (
    "project/test_commands_documented",
    "cli/up/test_up_first",
    "index/maintenance/test_leftovers",
    "project/test_commands_wrong",
    "service/jobs/test_jobs",
    "project/test_commands",
    "service/lifecycle/test_life",
    "service/server/test_workers",
    "service/server/test_worker_replacement",
    "service/lifecycle/test_kills",
    "service/server/test_connection",
    "cli/test_export_model",
    "cli/up/test_up",
    "training/auto/test_auto",
    "vision/export/test_export_model",
    "service/server/test_overload",
    "service/server/test_slow_clients",
    "service/test_schema",
    "service/lifecycle/test_soak",
    "service/telemetry/test_health",
    "service/security/test_api_keys",
    "index/query/test_left_out",
    "index/maintenance/test_maintenance",
    "index/store/sqlite/test_read_only",
    "index/durability/test_crashes",
    "index/search/test_autotune",
    "index/durability/test_corruption",
    "service/http/test_admission",
    "training/test_train",
    "cli/test_train_evaluate",
    "service/api/test_page",
    "cli/test_hostile_files",
)


@pytest.fixture(scope="session", autouse=True)
def interruptible() -> None:
    """Let the programs under test hear Ctrl-C, also where a shell runs the tests in background."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let the long files come first."""
    ranks = {HERE / f"{name}.py": rank for rank, name in enumerate(LONG)}
    items.sort(key=lambda item: ranks.get(item.path, len(ranks)))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Tiny networks are quickest on one thread, and do not wait for others to leave a core.

    Before every test: commands that run in this process set as many as there are cores.
    """
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder with random weights."""
    folder = tmp_path_factory.mktemp("model") / "small"
    write_model(folder)
    return folder


@pytest.fixture(scope="session")
def server(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that everybody may use; tests that write use ids of their own and clean up."""
    with server_with_folders(model, tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture(scope="session")
def strict_server(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StrictServer]:
    """A server that asks for keys, and takes little: 64 KiB, 10,000 pixels, 1 s, 1 request."""
    folder = tmp_path_factory.mktemp("strict")
    keys = {
        "reader": make_key("reader", ["read"]),
        "writer": make_key("writer", ["read", "write"]),
        "admin": make_key("admin", ["admin"]),
        "slow": make_key("slow", ["read"]),
    }
    lines = [key.lines for key in keys.values()]
    lines[-1] += "requests_per_minute = 2\n"
    (folder / "keys.toml").write_text("\n".join(lines))
    options = (
        *("--api-keys-file", str(folder / "keys.toml"), "--max-body-bytes", "65536"),
        *("--max-pixels", "10000", "--body-timeout-s", "1", "--max-queue", "1"),
    )
    with gallery_server(model, folder, *options) as running:
        yield StrictServer(running, {name: key.token for name, key in keys.items()})


@pytest.fixture(scope="session")
def demo_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what `lookalike demo` makes of a short training; to be read, not changed."""
    return made_once(tmp_path_factory, "demo-folder", make_demo)


@pytest.fixture(scope="session")
def photo_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with photos, their model and their gallery; to be read, not changed."""
    return made_once(tmp_path_factory, "photo-folder", make_photo_model)
