"""Photos and pretrained networks in, what each is worth and the best of them out.

Shape suffixes: N images, F features.
"""

import time
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import torch

from training.auto.assemble import assemble_network
from training.auto.feature_cache import FeatureStore
from training.auto.fine_tuning import FineTuner, is_started
from training.auto.from_scratch import ScratchCandidate, ScratchTraining
from training.auto.frozen_features import FeatureExtraction, load_extractor
from training.data.dataset import Dataset
from training.errors import DataError, DivergenceError, RecipeError, WeightsError
from training.heads.cross_validation import (
    CrossValidationData,
    ExtractedFeatures,
    FittedHeads,
    ValidationFigures,
)
from training.heads.fit_heads import fit_heads
from training.heads.model_choice import (
    Candidate,
    SelectionResult,
    describe_head,
    explain_choice,
    is_better,
    is_better_at_classes,
    is_clearly_better,
)
from training.progress import Progress
from training.publish import Trained
from training.recipes.auto_recipe import (
    LITE_SIDES,
    AutoFineTuning,
    AutoRecipe,
    Extractor,
    FromScratch,
)
from training.statistics.latency import forward_s
from vision.image.preprocessing import Preprocessing
from vision.networks.backbone import Backbone

CHANGED: Final = "the photos have changed since the training began; the next one learns from them"
LEARNT_HEAD: Final = "learnt with the network"
TOO_FEW: Final = "{:,} {} to learn from are too few, {:,} are the least"
NO_TIME: Final = "there was no time left: a larger budget buys it"
Load = Callable[[Preprocessing], Dataset]


class _Best(NamedTuple):
    """The best candidate so far."""

    name: str
    extractor: Extractor
    backbone: Backbone
    fitted: FittedHeads
    features: ExtractedFeatures
    folds: list[int] | None = None  # that it has not learnt from; None: any, held out in turn


class ModelSelection:
    """What was tried so far, and the best of it."""

    def __init__(
        self,
        recipe: AutoRecipe,
        load: Load,
        dataset: Dataset,
        *,
        store: FeatureStore,
        device: torch.device,
        progress: Progress,
    ) -> None:
        self._recipe, self._load, self._store = recipe, load, store
        self._device, self._progress = device, progress
        self._began = time.perf_counter()
        self._loaded = (recipe.preprocessing, dataset)
        self._cv_data = CrossValidationData.of(
            dataset.train, dataset.validation, dataset.unlabelled, folds=recipe.folds
        )
        self._tried: list[Candidate] = []
        self._best: _Best | None = None  # of the pretrained ones
        self._small: ScratchCandidate | None = None  # from scratch
        self._on_some: dict[tuple[str | int, ...], ValidationFigures] = {}  # by name and folds
        self._winner = ""
        self.winning_dataset = dataset

    def run(self) -> None:
        """Try everything that there is time for; raise where no network's weights can be had."""
        failure: WeightsError | None = None
        longest_s = 0.0
        if self._recipe.scratch is not None and self._cv_data.num_labels:
            self._learn_from_scratch(self._recipe.scratch)
        for extractor in self._recipe.extractors:
            is_first = self._best is None and self._small is None
            if not is_first and not self._has_time_for(extractor, longest_s):
                self._skip(str(extractor), NO_TIME)
                continue
            began = time.perf_counter()
            try:
                self._try(extractor)
            except WeightsError as error:
                failure = error
                self._skip(str(extractor), f"its weights cannot be had: {error}")
            longest_s = max(longest_s, time.perf_counter() - began)
        if self._best is None and self._small is None:
            raise failure or DataError(CHANGED)
        if self._best and self._recipe.tuning is not None and self._cv_data.num_labels:
            self._tune(self._best, self._recipe.tuning, reserved_s=longest_s)
        if self._small:
            self._settle(self._small)

    @property
    def result(self) -> SelectionResult:
        """What was tried, and why the best is."""
        return explain_choice(self._tried, self._winner, small=self._is_small)

    def trained(self) -> Trained:
        """Return the network of the best candidate."""
        seconds = time.perf_counter() - self._began
        if self._small and self._is_small:
            return self._small.as_trained(self._recipe.name, seconds, self.result)
        assert self._best is not None
        return assemble_network(
            self._best.extractor,
            self._best.backbone,
            self._best.fitted,
            self._recipe,
            device=self._device,
            seconds=seconds,
            result=self.result,
            features_NF=self._best.features.features_NF[: len(self.winning_dataset.train)],
        )

    @property
    def _is_small(self) -> bool:
        """Whether the network that learnt from scratch is the best."""
        return self._small is not None and self._small.scratch.name == self._winner

    def _try(self, extractor: Extractor) -> None:
        """Try a network as it is."""
        backbone = load_extractor(extractor)
        dataset = self._dataset(extractor.preprocessing, str(extractor))
        if dataset is None:
            return
        extraction = FeatureExtraction(self._store, extractor, backbone, device=self._device)
        features = self._extract(extraction, dataset)
        began = time.perf_counter()
        fitted = fit_heads(features, self._cv_data, self._recipe)
        seconds = extraction.seconds + time.perf_counter() - began
        self._measured(str(extractor), fitted.figures, seconds, describe_head(fitted))
        if self._best is None or is_clearly_better(fitted.figures, self._best.fitted.figures):
            self._takes(_Best(str(extractor), extractor, backbone, fitted, features), dataset)

    def _takes(self, best: _Best, dataset: Dataset) -> None:
        self._best, self._winner, self.winning_dataset = best, best.name, dataset

    def _tune(self, best: _Best, tuning: AutoFineTuning, *, reserved_s: float) -> None:
        """Let the best network learn on, and take what comes of it where it is better.

        Both are compared by images that neither has learnt from, those of the first fold.
        ``reserved_s`` are the seconds that looking at all images takes.
        """
        extractor = best.extractor
        name = f"{extractor}, fine-tuned"
        training_rows = self._cv_data.first_training_rows()
        if extractor.network not in LITE_SIDES:
            self._skip(name, "only networks whose weights come along learn on here")
            return
        if len(training_rows) < tuning.fewest_images:
            self._skip(name, TOO_FEW.format(len(training_rows), "photos", tuning.fewest_images))
            return
        left_s = self._left_s() - reserved_s
        folder = self._store.folder.parent
        if left_s <= 0 and not is_started(folder):
            self._skip(name, NO_TIME)
            return
        dataset = self._dataset(extractor.preprocessing, name)
        if dataset is None:
            return
        fine_tuner = FineTuner(
            extractor,
            dataset.train,
            training_rows,
            tuning=tuning,
            folder=folder,
            device=self._device,
            seed=self._recipe.seed,
        )
        epochs = fine_tuner.epochs_in(left_s)
        if epochs < tuning.fewest_epochs:
            self._skip(name, NO_TIME)
            return
        tuned = fine_tuner.run(epochs, name, self._progress)
        extraction = FeatureExtraction(
            self._store, extractor, tuned.backbone, device=self._device, tuned=name
        )
        features = self._extract(extraction, dataset)
        first = self._cv_data.folds[:1]
        before = self._on_folds(best, first)
        began = time.perf_counter()
        fitted = fit_heads(features, self._cv_data, self._recipe, folds=first)
        seconds = tuned.seconds + extraction.seconds + time.perf_counter() - began
        self._measured(name, fitted.figures, seconds, describe_head(fitted))
        if is_better(fitted.figures, before):
            self._takes(_Best(name, extractor, tuned.backbone, fitted, features, first), dataset)

    def _learn_from_scratch(self, how: FromScratch) -> None:
        """Let a small network learn from the images of most folds."""
        dataset = self._dataset(how.recipe.preprocessing, how.recipe.name)
        if dataset is None:
            return
        scratch = ScratchTraining(
            how,
            dataset,
            self._cv_data,
            folder=self._store.folder.parent,
            device=str(self._device),
        )
        if scratch.images < how.fewest_images:
            self._skip(scratch.name, TOO_FEW.format(scratch.images, "pictures", how.fewest_images))
            return
        if not scratch.is_started and scratch.estimated_s > self._left_s():
            self._skip(scratch.name, NO_TIME)
            return
        try:
            learnt = scratch.fit_held_out(self._progress)
        except (RecipeError, DivergenceError) as error:
            self._skip(scratch.name, str(error))
            return
        figures = scratch.figures(learnt, scratch.folds)
        self._measured(scratch.name, figures, learnt.seconds, LEARNT_HEAD)
        self._small = ScratchCandidate(scratch, dataset, learnt, figures, learnt.trained)

    def _settle(self, small: ScratchCandidate) -> None:
        """Take the network that learnt from scratch where it is better than the best of others."""
        if self._best:
            folds = self._best.folds or small.scratch.folds
            own = small.scratch.figures(small.run, folds)
            if not is_better_at_classes(own, self._on_folds(self._best, folds)):
                return
        self._small = small._replace(trained=small.scratch.refit(small.run, self._progress))
        self._winner, self.winning_dataset = small.scratch.name, small.dataset

    def _on_folds(self, best: _Best, folds: Sequence[int]) -> ValidationFigures:
        """Return what a candidate is worth on folds that another has not learnt from, either."""
        if best.folds == folds:
            return best.fitted.figures
        key: tuple[str | int, ...] = (best.name, *folds)
        if key not in self._on_some:
            fitted = fit_heads(best.features, self._cv_data, self._recipe, folds=folds)
            name = f"{best.name}, on the same photos"
            self._measured(name, fitted.figures, 0.0, describe_head(fitted))
            self._on_some[key] = fitted.figures
        return self._on_some[key]

    def _extract(self, extraction: FeatureExtraction, dataset: Dataset) -> ExtractedFeatures:
        parts = dataset.training_parts
        return extraction.extract(parts, self._cv_data, self._recipe, self._progress)

    def _measured(self, name: str, figures: ValidationFigures, seconds: float, head: str) -> None:
        self._keep(Candidate.with_figures(name, figures, seconds=seconds, head=head))

    def _has_time_for(self, extractor: Extractor, usual_s: float) -> bool:
        """Return whether one more network can be tried, of which most take ``usual_s``."""
        left_s = self._left_s()
        if left_s < usual_s or extractor.network in LITE_SIDES:
            return left_s >= usual_s
        widths = {"item_width": 8, "kind_width": 0}
        architecture = self._recipe.architecture(extractor, num_labels=2, **widths)
        each_s = forward_s(architecture, extractor.preprocessing, str(self._device))
        return left_s >= each_s * len(self._cv_data.labels_N)

    def _left_s(self) -> float:
        return self._recipe.budget_s - (time.perf_counter() - self._began)

    def _dataset(self, preprocessing: Preprocessing, name: str) -> Dataset | None:
        """Return the photos for a candidate; where others are there by now, pass it over."""
        if self._loaded[0] != preprocessing:
            dataset = self._load(preprocessing)
            if not dataset.has_photos_of(self.winning_dataset):
                self._skip(name, CHANGED)
                return None
            self._loaded = (preprocessing, dataset)
        return self._loaded[1]

    def _skip(self, name: str, why: str) -> None:
        self._keep(Candidate(name=name, seconds=0.0, not_tried=why))

    def _keep(self, candidate: Candidate) -> None:
        self._tried.append(candidate)
        self._progress(candidate)
