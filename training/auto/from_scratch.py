"""Small labelled pictures in, a small network that learnt from nothing but them out, and its worth.

It is judged by folds that it has not learnt from; where it is the best of all, it learns once more,
from all images.

Shape suffixes: N images, V views, K found among, D vector width, L labels.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from training.auto.assembly import held_out_figures
from training.auto.frozen_features import draw, only
from training.data.dataset import Dataset
from training.data.images.labelled_images import UNLABELLED, LabelledImages
from training.distributed import joined_world
from training.evaluation.views import made_views
from training.fit.checkpoint import CheckpointFolder
from training.fit.prepare_network import prepare
from training.fit.train_step import StepReport
from training.fit.trainer import EpochReport, TrainingSession
from training.heads.item_head import same_item
from training.heads.material import Figures, Material
from training.heads.trial_results import Comparison
from training.publish import Trained, trained_by
from training.recipes.auto_recipe import FOLDS, FromScratch
from training.statistics.latency import learning_s
from training.train import reproducible, run_session
from vision.inference.encoder import images_at_once
from vision.networks.network import Network
from vision.networks.normalization import Normalization

FIRST, AGAIN = "scratch", "scratch-again"  # folders
REPORTS: Final = 10  # of progress, in a training

Report = Callable[[int, int, float], None]  # epochs done, all epochs, mean loss in nats


class FirstRun(NamedTuple):
    """A network that has learnt from some of the folds only, and what it makes of all images."""

    trained: Trained
    vectors_ND: NDArray[np.float32]
    logits_NL: NDArray[np.float32]
    same_item: float  # share of made views that find the photo they are of
    seconds: float


class Scratch:
    """One small network, learning from the images of a training."""

    def __init__(
        self, how: FromScratch, dataset: Dataset, material: Material, *, folder: Path, device: str
    ) -> None:
        """Prepare to learn from images that suit the recipe; the folder is the training's."""
        # Where there are ten folds, one is too few pictures to judge by.
        self.folds = material.folds[: max(1, len(material.folds) // FOLDS)]
        held_N = np.isin(material.folds_N, self.folds)
        taught_N = np.flatnonzero(~held_N & (material.labels_N != UNLABELLED))
        self.images = len(taught_N)
        self._recipe = how.of(self.images)
        self.name = f"{how.recipe.network} from scratch at {how.recipe.preprocessing.size} px"
        self._dataset, self._material = dataset, material
        self._folder, self._device = folder, device
        self._held_out = dataset.validation
        self._first = dataset.train
        if self._held_out is None:
            self._held_out = dataset.train.only(np.flatnonzero(held_N[: len(dataset.train)]))
            self._first = dataset.train.only(taught_N)

    @property
    def is_begun(self) -> bool:
        """Whether an interrupted training has begun to learn."""
        return CheckpointFolder(self._folder / FIRST).exists()

    @property
    def needed_s(self) -> float:
        """About how many seconds both trainings take; takes a moment itself."""
        again = 1 if self._dataset.validation is None else 0
        labels = len(self._dataset.label_names)
        return (1 + again) * learning_s(self._recipe, self.images, labels, self._device)

    def measure(self, report: Report) -> FirstRun:
        """Learn from all images but those of ``folds``, and look at these.

        Raises:
            RecipeError: there are too few images of any class.
            DivergenceError: the loss is no longer a number.
            CheckpointError: the state cannot be saved, or is of other images.
        """
        session = self._run(FIRST, self._first, self._held_out, report)
        trained = trained_by(session, self._dataset.label_names)
        seconds = sum(one.seconds for one in session.history)
        parts = [self._dataset.train, self._dataset.validation, self._dataset.unlabelled]
        present = [part for part in parts if part is not None]
        said = [self._encode(session.network, part.images_NCHW) for part in present]
        vectors_ND, logits_NL = (np.concatenate(rows) for rows in zip(*said, strict=True))
        same_item = self._same_item(session.network, present, vectors_ND)
        return FirstRun(trained, vectors_ND, logits_NL, same_item, seconds)

    def figures(self, run: FirstRun, folds: Sequence[int]) -> Figures:
        """Return what the network is worth on some of the folds that it has not learnt from."""
        labels_N, folds_N = self._material.labels_N, self._material.folds_N
        right, found = [], []
        for fold in folds:
            held_N = folds_N == fold
            others = np.flatnonzero(~held_N & (labels_N != UNLABELLED))
            nearest = (run.vectors_ND[held_N] @ run.vectors_ND[others].T).argmax(axis=1)
            found.append(labels_N[others[nearest]] == labels_N[held_N])
            right.append(run.logits_NL[held_N].argmax(axis=1) == labels_N[held_N])
        right_N, found_N = np.concatenate(right), np.concatenate(found)
        return Figures(len(right_N), float(right_N.mean()), float(found_N.mean()), run.same_item)

    def again(self, learnt: FirstRun, report: Report) -> Trained:
        """Learn from all images, and return the network with the first one's temperature.

        Raises:
            As ``measure``.
        """
        if self._dataset.validation is not None:
            return learnt.trained
        session = self._run(AGAIN, self._dataset.train, None, report)
        trained = trained_by(session, self._dataset.label_names)
        return replace(trained, temperature=learnt.trained.temperature)

    def _run(
        self, name: str, images: LabelledImages, held_out: LabelledImages | None, report: Report
    ) -> TrainingSession:
        seed, device = self._recipe.seed, torch.device(self._device)
        with joined_world(self._device) as world, reproducible(seed, device):
            recipe, network = prepare(self._recipe, self._dataset.label_names, device)
            session = TrainingSession(recipe, network, images, held_out, world=world)
            subject: dict[str, Any] = {
                "recipe": recipe.to_json(),
                "data": {"images": images.fingerprint},
            }
            with CheckpointFolder(self._folder / name) as state:
                run_session(session, state, subject, _Watching(report))
        return session

    def _same_item(
        self, network: Network, parts: Sequence[LabelledImages], vectors_ND: NDArray[np.float32]
    ) -> float:
        """Return how often photos of the first fold find the very thing among all."""
        viewed_N, _ = draw(self._material)
        photos = only(parts, viewed_N)
        views_VNCHW = made_views(photos.images_NCHW, photos.contents_N, seed=self._recipe.seed)
        views_QD = np.concatenate([self._encode(network, views)[0] for views in views_VNCHW])
        return same_item(vectors_ND, views_QD, viewed_N, self._material)

    @torch.inference_mode()
    def _encode(
        self, network: Network, images_NCHW: NDArray[np.uint8]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return unit vectors (N, D) and logits (N, L)."""
        device = torch.device(self._device)
        normalise = Normalization(self._recipe.preprocessing, device)
        network.eval()
        vectors, logits = [], []
        step = images_at_once(self._recipe.preprocessing.size)
        for start in range(0, len(images_NCHW), step):
            pixels_BCHW = np.ascontiguousarray(images_NCHW[start : start + step])
            both = network(normalise(torch.from_numpy(pixels_BCHW).to(device)))
            vectors.append(both[0].float().cpu().numpy())
            logits.append(both[1].float().cpu().numpy())
        return np.concatenate(vectors), np.concatenate(logits)


class Small(NamedTuple):
    """A small network that learnt from scratch."""

    scratch: Scratch
    dataset: Dataset
    run: FirstRun
    figures: Figures
    trained: Trained  # from all images, if it is the best

    def as_trained(self, recipe: str, seconds: float, comparison: Comparison) -> Trained:
        """Return the network as the outcome of a recipe that took so long, and why it is."""
        held_out = held_out_figures(self.figures)
        return replace(
            self.trained,
            recipe=recipe,
            figures={**self.trained.figures, **held_out, "train_seconds": seconds},
            history={**self.trained.history, "tried": comparison.to_json()},
        )


class _Watching:
    """Passes on some of what a training tells."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._epochs = 0

    def started(self, *, epochs: int, epochs_done: int, steps_per_epoch: int) -> None:
        self._epochs = epochs

    def step(self, report: StepReport) -> None:
        pass

    def epoch(self, report: EpochReport) -> None:
        if report.epoch * REPORTS // self._epochs > (report.epoch - 1) * REPORTS // self._epochs:
            self._report(report.epoch, self._epochs, report.loss)
