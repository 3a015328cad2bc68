"""Small labelled pictures in, a small network that learnt from nothing but them out, and its worth.

It is judged by folds that it has not learnt from; where it is the best of all, it learns once more,
from all images.

Shape suffixes: N images, V views, K found among, D vector width, L labels.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from training.auto.assemble import validation_figures
from training.auto.frozen_features import sample_photos, select_photos
from training.data.dataset import Dataset
from training.data.images.labelled_images import UNLABELLED, LabelledImages
from training.distributed import join_process_group
from training.evaluation.views import make_views
from training.fit.checkpoint import CheckpointFolder
from training.fit.prepare_network import prepare
from training.fit.trainer import Trainer
from training.heads.cross_validation import CrossValidationData, ValidationFigures
from training.heads.item_head import same_item
from training.heads.model_choice import SelectionResult
from training.progress import CandidateEpoch, EpochMetrics, Event, Progress
from training.publish import Trained, trained_by
from training.recipes.auto_recipe import FOLDS, FromScratch
from training.statistics.latency import learning_s
from training.train import reproducible, run_trainer
from vision.inference.encoder import images_at_once
from vision.networks.network import Network
from vision.networks.normalization import Normalization

FIRST, AGAIN = "scratch", "scratch-again"  # folders
REPORTS: Final = 10  # of progress, in a training


class HeldOutRun(NamedTuple):
    """A network that has learnt from some of the folds only, and what it makes of all images."""

    trained: Trained
    vectors_ND: NDArray[np.float32]
    logits_NL: NDArray[np.float32]
    same_item: float  # share of made views that find the photo they are of
    seconds: float


class ScratchTraining:
    """One small network, learning from the images of a training."""

    def __init__(
        self,
        how: FromScratch,
        dataset: Dataset,
        cv_data: CrossValidationData,
        *,
        folder: Path,
        device: str,
    ) -> None:
        """Prepare to learn from images that suit the recipe; the folder is the training's."""
        # Where there are ten folds, one is too few pictures to judge by.
        self.folds = cv_data.folds[: max(1, len(cv_data.folds) // FOLDS)]
        held_N = np.isin(cv_data.folds_N, self.folds)
        training_rows = np.flatnonzero(~held_N & (cv_data.labels_N != UNLABELLED))
        self.images = len(training_rows)
        self._recipe = how.of(self.images)
        self.name = f"{how.recipe.network} from scratch at {how.recipe.preprocessing.size} px"
        self._dataset, self._cv_data = dataset, cv_data
        self._folder, self._device = folder, device
        self._held_out = dataset.validation
        self._first = dataset.train
        if self._held_out is None:
            self._held_out = dataset.train.take(np.flatnonzero(held_N[: len(dataset.train)]))
            self._first = dataset.train.take(training_rows)

    @property
    def is_started(self) -> bool:
        """Whether an interrupted training has begun to learn."""
        return CheckpointFolder(self._folder / FIRST).exists()

    @property
    def estimated_s(self) -> float:
        """About how many seconds both trainings take; takes a moment itself."""
        refit = 1 if self._dataset.validation is None else 0
        labels = len(self._dataset.label_names)
        return (1 + refit) * learning_s(self._recipe, self.images, labels, self._device)

    def fit_held_out(self, progress: Progress) -> HeldOutRun:
        """Learn from all images but those of ``folds``, and look at these.

        Raises:
            RecipeError: there are too few images of any class.
            DivergenceError: the loss is no longer a number.
            CheckpointError: the state cannot be saved, or is of other images.
        """
        trainer = self._run(FIRST, self._first, self._held_out, self._tenths(self.name, progress))
        trained = trained_by(trainer, self._dataset.label_names)
        seconds = sum(one.seconds for one in trainer.history)
        encodings = [
            self._encode(trainer.network, part.images_NCHW) for part in self._dataset.training_parts
        ]
        vectors_ND, logits_NL = (np.concatenate(rows) for rows in zip(*encodings, strict=True))
        same_item = self._same_item(trainer.network, vectors_ND)
        return HeldOutRun(trained, vectors_ND, logits_NL, same_item, seconds)

    def figures(self, run: HeldOutRun, folds: Sequence[int]) -> ValidationFigures:
        """Return what the network is worth on some of the folds that it has not learnt from."""
        labels_N, folds_N = self._cv_data.labels_N, self._cv_data.folds_N
        right, found = [], []
        for fold in folds:
            held_N = folds_N == fold
            others = np.flatnonzero(~held_N & (labels_N != UNLABELLED))
            nearest = (run.vectors_ND[held_N] @ run.vectors_ND[others].T).argmax(axis=1)
            found.append(labels_N[others[nearest]] == labels_N[held_N])
            right.append(run.logits_NL[held_N].argmax(axis=1) == labels_N[held_N])
        right_N, found_N = np.concatenate(right), np.concatenate(found)
        return ValidationFigures(
            len(right_N), float(right_N.mean()), float(found_N.mean()), run.same_item
        )

    def refit(self, learnt: HeldOutRun, progress: Progress) -> Trained:
        """Learn from all images, and return the network with the first one's temperature.

        Raises:
            As ``fit_held_out``.
        """
        if self._dataset.validation is not None:
            return learnt.trained
        tenths = self._tenths(f"{self.name}, all pictures", progress)
        trainer = self._run(AGAIN, self._dataset.train, None, tenths)
        trained = trained_by(trainer, self._dataset.label_names)
        return replace(trained, temperature=learnt.trained.temperature)

    def _run(
        self,
        name: str,
        images: LabelledImages,
        held_out: LabelledImages | None,
        progress: Progress,
    ) -> Trainer:
        seed, device = self._recipe.seed, torch.device(self._device)
        with join_process_group(self._device) as processes, reproducible(seed, device):
            recipe, network = prepare(self._recipe, self._dataset.label_names, device)
            trainer = Trainer(
                *(recipe, network, images, held_out), processes=processes, progress=progress
            )
            run_identity: dict[str, Any] = {
                "recipe": recipe.to_json(),
                "data": {"images": images.fingerprint},
            }
            with CheckpointFolder(self._folder / name) as state:
                run_trainer(trainer, state, run_identity)
        return trainer

    def _tenths(self, name: str, progress: Progress) -> Progress:
        """Return what passes on every tenth of a training's epochs, under a name."""
        epochs = self._recipe.epochs

        def tell(event: Event) -> None:
            if isinstance(event, EpochMetrics):
                tenth = event.epoch * REPORTS // epochs
                if tenth > (event.epoch - 1) * REPORTS // epochs:
                    progress(CandidateEpoch(name, event.epoch, epochs, event.loss))

        return tell

    def _same_item(self, network: Network, vectors_ND: NDArray[np.float32]) -> float:
        """Return how often photos of the first fold find the very thing among all."""
        viewed_N, _ = sample_photos(self._cv_data)
        photos = select_photos(self._dataset.training_parts, viewed_N)
        views_VNCHW = make_views(photos.images_NCHW, photos.contents_N, seed=self._recipe.seed)
        views_QD = np.concatenate([self._encode(network, views)[0] for views in views_VNCHW])
        return same_item(vectors_ND, views_QD, viewed_N, self._cv_data)

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


class ScratchCandidate(NamedTuple):
    """A small network that learnt from scratch."""

    scratch: ScratchTraining
    dataset: Dataset
    run: HeldOutRun
    figures: ValidationFigures
    trained: Trained  # from all images, if it is the best

    def as_trained(self, recipe: str, seconds: float, result: SelectionResult) -> Trained:
        """Return the network as the outcome of a recipe that took so long, and why it is."""
        held_out = validation_figures(self.figures)
        return replace(
            self.trained,
            recipe=recipe,
            figures={**self.trained.figures, **held_out, "train_seconds": seconds},
            history={**self.trained.history, "tried": result.to_json()},
        )
