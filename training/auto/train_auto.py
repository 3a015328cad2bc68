"""`auto`: one's own photos in, the best model folder that the time allows out.

Photos are embedded once by each of several pretrained networks; heads in closed form are fitted to
that and judged by photos held out; the best of all becomes the model. While it runs, its state lies
in a folder beside the model folder, ``OUT.training``.
"""

from pathlib import Path

import torch

from training.auto.feature_cache import FeatureStore
from training.auto.frozen_features import build_extractor
from training.auto.model_selection import Load, ModelSelection
from training.distributed import world_size
from training.errors import DataError, RecipeError, WeightsError
from training.fit.checkpoint import Checkpoint, CheckpointFolder
from training.fit.preflight import refuse_existing, refuse_unfinished, state_folder
from training.heads.model_choice import SelectionResult
from training.progress import Progress
from training.publish import finish, publish
from training.recipes.auto_recipe import AutoRecipe
from training.train import reproducible
from vision.inference.torch_encoder import pick_device
from vision.model.manifest import Manifest


def train_auto(
    recipe: AutoRecipe,
    load: Load,
    *,
    out: Path,
    device: str = "auto",
    resume: bool = False,
    progress: Progress,
) -> tuple[Manifest, SelectionResult]:
    """Try what ``recipe`` says, write the model folder ``out`` of the best, and say why it is.

    The same photos, recipe and machine give the same model, whether or not it was interrupted;
    only what the budget has no time for depends on the clock, and is named.

    Args:
        recipe: what to try.
        load: reads the photos as a preprocessing makes them; the same parts every time.
        out: the model folder to make; it appears whole or not at all.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        resume: go on with an interrupted call; begin if there is none.
        progress: told what is done, and of every candidate.

    Raises:
        ModelFolderError: ``out`` exists already, or cannot be written.
        DeviceError: there is no such device here.
        WeightsError: the weights of no network can be had.
        CheckpointError: another training is in the way, or its state cannot be saved or read.
        DataError: nothing can be learnt from the photos.
    """
    refuse_existing(out)
    place = pick_device(device)
    with CheckpointFolder(state_folder(out)) as state, reproducible(recipe.seed, place):
        refuse_unfinished(state, resume=resume)
        dataset = load(recipe.preprocessing)
        if not dataset.label_names:
            recipe = recipe.without_classes()
        run_identity = {"recipe": recipe.to_json(), "data": dataset.to_json()}
        if state.exists():
            state.load(run_identity)
        else:
            state.save(Checkpoint(run_identity, {}, {}))
        selection = ModelSelection(
            recipe,
            load,
            dataset,
            store=FeatureStore(state.folder),
            device=place,
            progress=progress,
        )
        try:
            selection.run()
        except (DataError, RecipeError, WeightsError):
            state.remove()  # the next try would end alike: nothing to go on from
            raise
        manifest = publish(
            finish(selection.trained(), selection.winning_dataset, run_identity), out
        )
        state.remove()
    return manifest, selection.result


def check_auto(recipe: AutoRecipe, *, out: Path, device: str, resume: bool) -> None:
    """Refuse what no data could make right: takes seconds, and leaves nothing behind.

    Raises:
        ModelFolderError: ``out`` exists already.
        CheckpointError: an interrupted training is in the way, or nothing can be written there.
        DeviceError: there is no such device here.
        RecipeError: a network does not exist, or does not take such images; several processes.
    """
    refuse_existing(out)
    if world_size() > 1:
        raise RecipeError(
            f"{recipe.name} works in one process; for several of them name another recipe"
        )
    with CheckpointFolder(state_folder(out)) as state:
        refuse_unfinished(state, resume=resume)
    pick_device(device)
    with torch.random.fork_rng(devices=[]):
        for extractor in recipe.extractors:
            build_extractor(extractor)
