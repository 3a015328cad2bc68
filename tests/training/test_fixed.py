"""What a training does not change is not written again, and yet decides whether it may go on."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch

from files.checksummed_json import by_name, with_checksum
from tests.support.learners import press_ctrl_c
from tests.training.fit.initialization.test_backbones import SMALL, coloured, small
from training.distributed import ProcessGroup
from training.errors import CheckpointError
from training.fit.checkpoint import STATE_NAME, CheckpointFolder
from training.fit.trainer import Trainer
from training.recipes.built_in import backbone_finetune, backbone_frozen
from training.recipes.recipe import FineTuning, Recipe
from training.train import train
from vision.errors import ModelFolderError
from vision.model.manifest import WEIGHTS_NAME
from vision.networks.network import build_network

FROZEN = small(backbone_frozen(SMALL), None, average=0.9, keep_best=True, precision="fp32")
HALF = small(
    backbone_finetune(SMALL),
    None,
    fine_tuning=FineTuning(groups=4, frozen_groups=2, head_epochs=1),
    keep_best=True,
    precision="fp32",
)


def stopped(recipe: Recipe, out: Path) -> Path:
    """Train for one epoch more, and return the folder of the checkpoint."""
    with pytest.raises(KeyboardInterrupt):
        train(recipe, coloured(), out=out, device="cpu", resume=True, progress=press_ctrl_c)
    return out.with_name(f"{out.name}.training")


def session_of(recipe: Recipe, *, seed: int = 0) -> Trainer:
    torch.manual_seed(seed)
    network = build_network(recipe.architecture(3), recipe.preprocessing)
    dataset = coloured()
    return Trainer(
        recipe, network, dataset.train, None, processes=ProcessGroup(0, 1, torch.device("cpu"))
    )


def bytes_of_numbers(numbers: int) -> int:
    return 4 * numbers


def test_the_checkpoint_of_a_frozen_backbone_holds_its_head_and_not_the_backbone(
    tmp_path: Path,
) -> None:
    folder = stopped(FROZEN, tmp_path / "m")
    [tensors] = folder.glob("*.safetensors")
    network = build_network(FROZEN.architecture(3), FROZEN.preprocessing)
    head = [*network.embedding.parameters(), *network.classifier.parameters()]
    # Weights, two moments, the average and the best weights; generators and names come on top.
    room = 5 * bytes_of_numbers(sum(p.numel() for p in head)) + 40_000
    whole = bytes_of_numbers(sum(p.numel() for p in network.parameters()))
    assert tensors.stat().st_size < room < whole / 3
    assert not any("features" in name for name in safetensors.torch.load_file(tensors))


def test_the_checkpoint_of_a_fine_tuning_leaves_out_the_groups_that_never_learn(
    tmp_path: Path,
) -> None:
    folder = stopped(HALF, tmp_path / "m")
    [tensors] = folder.glob("*.safetensors")
    names = safetensors.torch.load_file(tensors).keys()
    for start in ("learner.network.", "average.", "best."):
        assert f"{start}features.body.conv5.0.weight" in names
        assert f"{start}features.body.conv5.1.running_mean" in names
        assert f"{start}features.body.conv1.0.weight" not in names
        assert f"{start}features.body.conv1.1.running_mean" not in names


def test_a_group_that_no_epoch_reaches_is_left_out_too(tmp_path: Path) -> None:
    never = replace(HALF, fine_tuning=FineTuning(groups=1, head_epochs=HALF.epochs))
    folder = stopped(never, tmp_path / "m")
    [tensors] = folder.glob("*.safetensors")
    assert not any("features" in name for name in safetensors.torch.load_file(tensors))


@pytest.mark.parametrize(
    "recipe",
    [FROZEN, HALF, replace(FROZEN, reduction="pca", metric_loss="none")],
    ids=["frozen", "half", "pca"],
)
def test_a_partly_fixed_network_goes_on_to_the_same_weights(recipe: Recipe, tmp_path: Path) -> None:
    train(recipe, coloured(), out=tmp_path / "whole", device="cpu")
    stopped(recipe, tmp_path / "parts")
    train(recipe, coloured(), out=tmp_path / "parts", device="cpu", resume=True)
    whole, parts = ((tmp_path / name / WEIGHTS_NAME).read_bytes() for name in ("whole", "parts"))
    assert whole == parts
    assert sorted(path.name for path in tmp_path.iterdir()) == ["parts", "whole"]


def test_the_average_of_a_frozen_backbone_is_no_copy_of_it() -> None:
    session = session_of(FROZEN)
    ours = session.network.state_dict()
    average = session.kept_weights
    shared = [name for name in ours if ours[name].data_ptr() == average[name].data_ptr()]
    assert shared == [name for name in ours if name.startswith("features.")]


@pytest.mark.parametrize("recipe", [FROZEN, HALF], ids=["frozen", "half"])
def test_a_checkpoint_does_not_go_on_from_other_fixed_weights(recipe: Recipe) -> None:
    session = session_of(recipe)
    session.run_epoch()
    checkpoint = session.checkpoint({})
    with pytest.raises(CheckpointError, match="the part of the network that does not learn"):
        session_of(recipe, seed=1).restore(checkpoint)
    session_of(recipe).restore(checkpoint)


def test_other_pretrained_weights_are_refused_on_resuming(tmp_path: Path) -> None:
    for seed in (1, 2):
        torch.manual_seed(seed)
        state = build_network(FROZEN.architecture(3), FROZEN.preprocessing).features.state_dict()
        path = tmp_path / str(seed) / "weights.safetensors"
        path.parent.mkdir()
        safetensors.torch.save_file({k.removeprefix("body."): v for k, v in state.items()}, path)
    first = replace(FROZEN, weights=str(tmp_path / "1" / "weights.safetensors"))
    stopped(first, tmp_path / "m")
    second = replace(FROZEN, weights=str(tmp_path / "2" / "weights.safetensors"))
    with pytest.raises(CheckpointError, match="another recipe: weights_sha256 was"):
        train(second, coloured(), out=tmp_path / "m", device="cpu", resume=True)


def test_a_training_does_not_go_on_on_another_kind_of_device() -> None:
    trainer = session_of(FROZEN)
    checkpoint = trainer.checkpoint({})
    elsewhere = replace(checkpoint, state={**checkpoint.state, "device": "cuda"})
    with pytest.raises(CheckpointError, match=r"began on cuda .* --device cuda, or"):
        session_of(FROZEN).restore(elsewhere)


@pytest.mark.parametrize("version", [1, 2, 3])
def test_a_checkpoint_of_an_earlier_version_says_what_to_do(version: int, tmp_path: Path) -> None:
    folder = stopped(FROZEN, tmp_path / "m")
    path = folder / STATE_NAME
    fields = json.loads(path.read_bytes())
    del fields["sha256"]
    fields["format_version"] = version
    path.write_bytes(with_checksum(fields, by_name, name="sha256"))
    with pytest.raises(CheckpointError, match="another version of this program"):
        train(FROZEN, coloured(), out=tmp_path / "m", device="cpu", resume=True)


def test_what_a_killed_save_left_behind_goes_with_the_next_one(tmp_path: Path) -> None:
    folder = stopped(FROZEN, tmp_path / "m")
    (folder / "0123456789abcdef.safetensors.tmp").write_bytes(bytes(100))
    with CheckpointFolder(folder) as place:
        place.save(session_of(FROZEN).checkpoint({}))
    assert len(list(folder.glob("*.safetensors*"))) == 1


def test_what_a_killed_publishing_left_behind_goes_with_the_next_one(tmp_path: Path) -> None:
    out = tmp_path / "m [1]"
    for name in (".m [1].0123abcd.unfinished", ".m [1].tmp"):
        (tmp_path / name).mkdir()
        (tmp_path / name / WEIGHTS_NAME).write_bytes(bytes(10))
    train(FROZEN, coloured(), out=out, device="cpu")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".m [1].tmp", "m [1]"]


def test_a_state_left_behind_beside_a_finished_model_is_named(tmp_path: Path) -> None:
    train(FROZEN, coloured(), out=tmp_path / "m", device="cpu")
    (tmp_path / "m.training").mkdir()
    with pytest.raises(ModelFolderError, match=r"m\.training is left over from its training"):
        train(FROZEN, coloured(), out=tmp_path / "m", device="cpu", resume=True)
