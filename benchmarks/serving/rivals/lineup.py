"""The rivals: what to install, how to start them, and how they want an image."""

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from benchmarks.serving.load import Upload
from benchmarks.serving.rivals.environments import install


@dataclass(frozen=True)
class Rival:
    """One other server.

    The first word of ``command`` is a program of its environment; ``{port}``, ``{model}`` and
    ``{gallery}`` are filled in.
    """

    name: str
    title: str
    packages: tuple[str, ...]
    command: tuple[str, ...]
    path: str  # that images are posted to
    upload: Literal["raw", "multipart"]
    part: str = "image"  # name of the file in the form
    environment: dict[str, str] = field(default_factory=dict)

    def install(self) -> Path:
        """Return the folder of its environment, made when missing; ours when it needs none."""
        if not self.packages:
            return Path(sys.prefix)
        return install(self.packages[0].partition("==")[0].partition("[")[0], self.packages)

    def command_in(self, environment: Path, *, port: int, model: Path, gallery: Path) -> list[str]:
        """Return what starts it on ``port``."""
        program, *rest = self.command
        values = {"port": port, "model": model, "gallery": gallery}
        return [str(environment / "bin" / program), *(word.format(**values) for word in rest)]

    def upload_of(self, image: bytes) -> Upload:
        """Return ``image`` as it wants it."""
        return Upload.raw(image) if self.upload == "raw" else Upload.form([image], part=self.part)


BENTOML = ("bentoml==1.4.39",)
MOSEC = ("mosec==0.9.8",)
FASTAPI = ("fastapi[standard]==0.165.0",)

OURS = Rival(
    name="lookalike",
    title="Lookalike",
    packages=(),
    command=(
        *("python", "-m", "cli.main", "serve", "--port", "{port}"),
        *("--model", "{model}", "--gallery", "{gallery}", "--create"),
    ),
    path="/v1/classify",
    upload="raw",
)

RIVALS = (
    Rival(
        name="bentoml",
        title="BentoML, PIL input",
        packages=BENTOML,
        command=(
            *("bentoml", "serve", "benchmarks.serving.rivals.bentoml_one:Classify"),
            *("--host", "127.0.0.1", "--port", "{port}"),
        ),
        path="/classify",
        upload="multipart",
    ),
    Rival(
        name="bentoml-batched",
        title="BentoML, batchable behind depends",
        packages=BENTOML,
        command=(
            *("bentoml", "serve", "benchmarks.serving.rivals.bentoml_batched:Classify"),
            *("--host", "127.0.0.1", "--port", "{port}"),
        ),
        path="/classify",
        upload="multipart",
    ),
    Rival(
        name="litserve",
        title="LitServe",
        packages=("litserve==0.2.19", "python-multipart==0.0.34"),
        command=("python", "-m", "benchmarks.serving.rivals.litserve_app"),
        path="/predict",
        upload="multipart",
    ),
    Rival(
        name="fastapi",
        title="FastAPI, def",
        packages=FASTAPI,
        command=("fastapi", "run", "benchmarks/serving/rivals/fastapi_app.py", "--port", "{port}"),
        path="/classify",
        upload="multipart",
        part="file",
    ),
    Rival(
        name="fastapi-async",
        title="FastAPI, async def",
        packages=FASTAPI,
        command=("fastapi", "run", "benchmarks/serving/rivals/fastapi_app.py", "--port", "{port}"),
        path="/classify_async",
        upload="multipart",
        part="file",
    ),
    Rival(
        name="ray",
        title="Ray Serve",
        packages=("ray[serve]==2.60.0",),
        command=("python", "-m", "benchmarks.serving.rivals.ray_app"),
        path="/",
        upload="raw",
    ),
    Rival(
        name="torchserve",
        title="TorchServe",
        packages=("torchserve==0.12.0", "torch-model-archiver==0.12.0", "pyyaml==6.0.3"),
        command=("python", "-m", "benchmarks.serving.rivals.torchserve_start"),
        path="/predictions/classify",
        upload="raw",
    ),
    Rival(
        name="mosec",
        title="mosec, two stages",
        packages=MOSEC,
        command=("python", "-m", "benchmarks.serving.rivals.mosec_app", "--port", "{port}"),
        path="/inference",
        upload="raw",
        environment={"STAGES": "2"},
    ),
    Rival(
        name="mosec-whole",
        title="mosec, one stage",
        packages=MOSEC,
        command=("python", "-m", "benchmarks.serving.rivals.mosec_app", "--port", "{port}"),
        path="/inference",
        upload="raw",
        environment={"STAGES": "1"},
    ),
    Rival(
        name="bare",
        title="bare uvicorn",
        packages=(),
        command=(
            *("uvicorn", "--factory", "benchmarks.serving.bare_app:create_app", "--port", "{port}"),
            *("--no-access-log", "--log-level", "warning", "--loop", "uvloop"),
            *("--http", "httptools"),
        ),
        path="/v1/classify",
        upload="raw",
    ),
)
