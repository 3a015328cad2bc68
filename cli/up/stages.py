"""The stages of `lookalike up`: train, export, measure, index. Each does what is left to do of it
and returns the line that says what there is now.
"""

import json
import shutil
import time
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING

from cli.evaluate import REPORT_FIGURES, REPORT_PAGE
from cli.support.console import quiet
from cli.support.dataset_loading import load_to_evaluate, load_to_train
from cli.up.workspace import State, Workspace
from training.errors import DataError
from training.formatting import duration, percent, plural
from vision.errors import ExportError
from vision.inference.open_encoder import NVIDIA
from vision.inference.openvino_encoder import RUNTIME
from vision.model.export_folder import has_export, precision_name
from vision.model.manifest import Manifest

if TYPE_CHECKING:
    from training.data.dataset import Dataset
    from training.recipes.auto_recipe import AutoRecipe
    from training.recipes.recipe import Recipe


def train(
    workspace: Workspace, recipe: "AutoRecipe | Recipe", *, group: str | None, device: str
) -> str:
    """Make the model; an interrupted training goes on.

    Where the photos, or what was asked for, changed since it was interrupted, it begins again.

    Raises:
        TrainingError, VisionError, DatasetError: as `lookalike train`.
    """
    from training.errors import UnfitCheckpointError  # noqa: PLC0415
    from training.fit.preflight import state_folder  # noqa: PLC0415 - torch takes seconds

    started = time.monotonic()
    with quiet():
        try:
            manifest = _train(workspace, recipe, group=group, device=device)
        except UnfitCheckpointError:
            shutil.rmtree(state_folder(workspace.model))
            manifest = _train(workspace, recipe, group=group, device=device)
    return f"trained in {duration(time.monotonic() - started)}: {describe_training(manifest)}"


def _train(
    workspace: Workspace, recipe: "AutoRecipe | Recipe", *, group: str | None, device: str
) -> Manifest:
    from cli.training.auto import fit_auto  # noqa: PLC0415
    from cli.training.fit import RunOptions, fit_with_progress  # noqa: PLC0415 - torch takes seconds
    from training.recipes.recipe import Recipe  # noqa: PLC0415

    if isinstance(recipe, Recipe):
        dataset = load_to_train(workspace.source, recipe)
        return fit_with_progress(recipe, dataset, workspace.model, device=device, resume=True)
    where = RunOptions(
        data=workspace.source,
        out=workspace.model,
        group=group,
        bits=recipe.preprocessing.bits,
        device=device,
    )
    return fit_auto(recipe, where, resume=True)[0]


def describe_training(manifest: Manifest) -> str:
    """Return how good a model was when it was trained, as part of a sentence."""
    accuracy = manifest.metrics.get("test_accuracy")
    if manifest.classes_sha256 is not None:
        return f"{plural(len(manifest.labels), 'class', 'classes')} from labels that came later"
    if not manifest.labels or accuracy is None:
        return "vectors for photos without classes"
    images = int(manifest.metrics.get("test_images", 0))
    return f"{percent(accuracy)} right of {images:,} photos kept apart"


class EvaluationData:
    """The images to measure a model with, read when they are first needed and only once."""

    def __init__(self, workspace: Workspace, group: str | None) -> None:
        self._workspace = workspace
        self._group = group

    @cached_property
    def dataset(self) -> "Dataset":
        """Them.

        Raises:
            DataError: nothing is left to measure with.
        """
        with quiet():
            return load_to_evaluate(
                self._workspace.source, self._workspace.model, group=self._group
            )


def export(
    workspace: Workspace, state: State, evaluation_data: EvaluationData, *, device: str
) -> tuple[State, str]:
    """Export the model for servers on a CPU, once; without it they compute with torch.

    Raises:
        ModelFolderError: the model cannot be used.
        OSError: what came of it cannot be remembered.
    """
    if has_export(workspace.model, RUNTIME):
        return state, state.exported or f"exported for {RUNTIME}"
    if device != "cpu" and (device != "auto" or NVIDIA.exists()):
        return state, "not exported: it is served by the GPU"
    if state.exported is not None:
        return state, state.exported
    from cli.export_model import export_for_cpu  # noqa: PLC0415 - torch takes seconds

    try:
        with quiet():
            exported = export_for_cpu(workspace.model, evaluation_data.dataset)
        name = precision_name(exported.precision, exported.floats)
        line = f"exported as {name}: mean cosine {exported.difference.cosine_mean:.4f}"
    except (ExportError, DataError) as error:
        line = f"not exported, served by torch: {error}"
    state = replace(state, exported=line)
    workspace.write_state(state)
    return state, line


def measure(
    workspace: Workspace, state: State, evaluation_data: EvaluationData, *, device: str
) -> tuple[State, str]:
    """Write the report where there is none; where nothing can be measured, remember that.

    Raises:
        ModelFolderError: the model cannot be used.
        OSError: the report cannot be written.
    """
    page = workspace.model / REPORT_PAGE
    if not page.exists() and state.unmeasured is None:
        from cli.evaluate import write_report  # noqa: PLC0415 - torch takes seconds
        from training.evaluation.evaluate import evaluate_model  # noqa: PLC0415

        try:
            dataset = evaluation_data.dataset
        except DataError as error:
            state = replace(state, unmeasured=str(error))
            workspace.write_state(state)
        else:
            measured = evaluate_model(workspace.model, dataset, device=device)
            write_report(measured, dataset, workspace.model)
    if state.unmeasured is not None:
        return state, f"not measured: {state.unmeasured}"
    first = ""
    with suppress(OSError, ValueError, KeyError, TypeError):
        figures = json.loads((workspace.model / REPORT_FIGURES).read_bytes())
        share, what = figures["r_at_1"], "their class"
        if share is None:
            share, what = figures["same_item"]["r_at_1"], "the very thing"
        first = f"{percent(share)} find {what} first; "
    return state, f"measured: {first}{workspace.home / workspace.model.name / REPORT_PAGE}"
