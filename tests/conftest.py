"""Fixtures that several files share: a small model, a gallery made with it, and running servers."""

import hashlib
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from index.gallery import Gallery
from index.items.item import NewItem
from index.maintenance.compaction import SETTING, TunedSpec
from index.search.index_spec import EXACT_ROWS, candidate_specs
from index.store.store import Store
from service.security.api_keys import make_key
from tests.support.images.pngs import png
from tests.support.models import LABELS, write_model
from tests.support.newcomer import made_once, make_demo, make_photo_model
from tests.support.server.servers import Server, running_server
from vision.image.thumbnail import make_thumbnail
from vision.inference.torch_encoder import TorchEncoder
from vision.model.manifest import read_manifest

HERE = Path(__file__).parent
STORED = 40  # items in the gallery that tests start from

# Files that take long, the longest first: begun last, one would leave all other processes idle.
# Those that wait for the same desk stand apart.
LONG = (
    "project/test_commands_documented",
    "cli/up/test_up_first",
    "index/maintenance/test_leftovers",
    "project/test_commands_wrong",
    "service/jobs/test_jobs",
    "project/test_commands",
    "service/lifecycle/test_life",
    "service/server/test_workers",
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


def write_gallery(folder: Path, model: Path) -> None:
    """Write a gallery of pictures `png(0)` to `png(39)` under the ids item-00 to item-39."""
    encoder = TorchEncoder.load(model, device="cpu")
    manifest, preprocessing = encoder.manifest, encoder.manifest.preprocessing
    files = [png(number) for number in range(STORED)]
    images = [preprocessing.decode(data) for data in files]
    encoding = encoder.encode(np.stack([preprocessing.pixels(image) for image in images]))
    with Gallery.create(
        folder,
        model_name=manifest.name,
        fingerprint=manifest.fingerprint,
        width=manifest.architecture.width,
        model_folder=model,
    ) as gallery:
        gallery.put(
            [
                NewItem(
                    id=f"item-{number:02d}",
                    vector_D=encoding.vectors_BD[number],
                    label=LABELS[number % 4],
                    metadata={"number": number, "even": number % 2 == 0},
                    thumbnail=make_thumbnail(images[number]),
                    content_sha256=hashlib.sha256(data).hexdigest(),
                )
                for number, data in enumerate(files)
            ]
        )


def write_vectors(folder: Path, model: Path, vectors_ND: NDArray[np.float32]) -> None:
    """Write a gallery of bare vectors under the ids row-0, row-1, …; a graph is chosen for it.

    So few would be scanned otherwise. The graph is not built yet.
    """
    manifest = read_manifest(model)
    with Gallery.create(
        folder,
        model_name=manifest.name,
        fingerprint=manifest.fingerprint,
        width=manifest.architecture.width,
    ) as gallery:
        gallery.put(
            [
                NewItem(
                    id=f"row-{row}",
                    vector_D=vector_D,
                    label=None,
                    metadata={},
                    thumbnail=None,
                    content_sha256=hashlib.sha256(vector_D.tobytes()).hexdigest(),
                )
                for row, vector_D in enumerate(vectors_ND)
            ]
        )
    store = Store.open(folder)
    specs = candidate_specs(EXACT_ROWS, manifest.architecture.width)
    graph = next(spec for spec in specs if spec.kind == "graph")
    store.set_setting(SETTING, TunedSpec(graph, len(vectors_ND)).to_json())
    store.close()


@pytest.fixture(scope="session")
def server(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that everybody may use; tests that write use ids of their own and clean up."""
    with server_with_folders(model, tmp_path_factory.mktemp("server")) as running:
        yield running


@contextmanager
def server_with_folders(model: Path, folder: Path) -> Iterator[Server]:
    """A server of a new gallery, with folders for backups and imports, all beside its log."""
    write_gallery(folder / "gallery", model)
    (folder / "backups").mkdir()
    (folder / "imports").mkdir()
    options = ("--backups-dir", str(folder / "backups"), "--imports-dir", str(folder / "imports"))
    with running_server(model, folder / "gallery", folder / "log.txt", *options) as running:
        yield running


class StrictServer:
    """A server with keys and small limits, and the keys' tokens."""

    def __init__(self, running: Server, tokens: dict[str, str]) -> None:
        self.running = running
        self.url = running.url
        self.tokens = tokens

    def headers(self, key: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.tokens[key]}"}


@pytest.fixture(scope="session")
def strict_server(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StrictServer]:
    """A server that asks for keys, and takes little: 64 KiB, 10,000 pixels, 1 s, 1 request."""
    folder = tmp_path_factory.mktemp("strict")
    write_gallery(folder / "gallery", model)
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
    with running_server(model, folder / "gallery", folder / "log.txt", *options) as running:
        yield StrictServer(running, {name: key.token for name, key in keys.items()})


@pytest.fixture(scope="session")
def demo_desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what `lookalike demo` makes of a short training; to be read, not changed."""
    return made_once(tmp_path_factory, "demo-desk", make_demo)


@pytest.fixture(scope="session")
def photo_desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with photos, their model and their gallery; to be read, not changed."""
    return made_once(tmp_path_factory, "photo-desk", make_photo_model)
