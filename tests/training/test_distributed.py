"""Two processes that train together do what one does alone."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch
import typer
from typer.testing import CliRunner

from cli.training.train import train
from tests.support.images.pngs import write_photographs
from tests.support.paths import ROOT
from training.distributed import ProcessGroup
from training.errors import RecipeError
from training.fit.batches import FeatureBatches
from vision.model.manifest import WEIGHTS_NAME

app = typer.Typer()
app.command()(train)


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_photographs(tmp_path_factory.mktemp("photographs"), classes=3)


def options(photographs: Path, out: Path) -> list[str]:
    """Return what `train` is asked for, however many processes there are."""
    return [
        *("--out", str(out), "--data", str(photographs), "--device", "cpu", "--json"),
        *("--recipe", "cnn"),
        *("--size", "24", "--batch-size", "16", "--epochs", "3", "--precision", "fp32"),
    ]


def test_two_processes_have_the_loss_curve_and_the_weights_of_one(
    photographs: Path, tmp_path: Path
) -> None:
    one = CliRunner().invoke(app, options(photographs, tmp_path / "one"))
    assert one.exit_code == 0, one.output
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    two = subprocess.run(
        [
            *(sys.executable, *launcher, "-m", "cli.main", "train"),
            *options(photographs, tmp_path / "two"),
        ],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        check=True,
        capture_output=True,
        timeout=120,
    )
    assert json.loads(two.stdout)["model"] == str(tmp_path / "two")  # once, by the first
    histories = [
        json.loads((tmp_path / name / "training.json").read_text()) for name in ("one", "two")
    ]
    assert [history["environment"]["processes"] for history in histories] == [1, 2]
    for key, tolerance in (("loss", 1e-3), ("accuracy", 1e-6), ("validation_loss", 1e-3)):
        alone, both = ([epoch[key] for epoch in history["history"]] for history in histories)
        assert both == pytest.approx(alone, abs=tolerance), key
    assert len(histories[0]["history"]) == 3
    weights = [safetensors.torch.load_file(tmp_path / n / WEIGHTS_NAME) for n in ("one", "two")]
    for name, tensor in weights[0].items():
        assert torch.allclose(tensor.double(), weights[1][name].double(), atol=1e-3), name
    assert list(tmp_path.glob("*.training")) == []


def test_every_row_of_a_batch_belongs_to_one_process() -> None:
    rows = torch.arange(12)
    shares = [ProcessGroup(rank, 3, torch.device("cpu")).shard(rows) for rank in range(3)]
    assert sorted(torch.cat(shares).tolist()) == rows.tolist()
    assert {len(share) for share in shares} == {4}


@pytest.mark.parametrize(("wanted", "images"), [(7, 100), (4, 1)])
def test_a_batch_that_cannot_be_shared_is_refused(wanted: int, images: int) -> None:
    with pytest.raises(RecipeError, match="cannot be shared by 2 processes"):
        FeatureBatches(
            torch.zeros(1, images, 3),
            torch.zeros(images, dtype=torch.long),
            batch_size=wanted,
            processes=ProcessGroup(0, 2, torch.device("cpu")),
        )
