"""`auto`: one's own photos in, the best model folder that the time allows out.

Photos are embedded once by each of several pretrained networks; heads in closed form are fitted to
that and judged by photos held out; the best of all becomes the model. While it runs, its state lies
in a folder beside the model folder, ``OUT.training``.

Shape suffixes: N images, V views, C channels, H x W pixels.
"""

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple, Protocol

import torch

from training.assembly import assembled
from training.auto_recipe import LITE_SIDES, AutoRecipe, Extractor, Tuning
from training.candidates import fit_heads
from training.checkpoint import Checkpoint, CheckpointFolder
from training.checks import refuse_existing, refuse_unfinished, state_folder
from training.data import Dataset
from training.distributed import world_size
from training.errors import DataError, RecipeError, WeightsError
from training.features import FeatureStore
from training.material import Fitted, Material, Seen
from training.publish import Trained, finish, publish
from training.seeing import Seeing, built, pretrained
from training.train import reproducible
from training.tried import Comparison, Tried, compare, is_better
from training.tuning import Tuner, is_begun
from vision.backbone import Backbone
from vision.encoder import pick_device
from vision.manifest import Manifest
from vision.preprocess import Preprocessing

NO_TIME: Final = "there was no time left: a larger budget buys it"

Load = Callable[[Preprocessing], Dataset]


class AutoObserver(Protocol):
    """Told about progress, in the order of events."""

    def embedding(self, name: str, done: int, total: int) -> None:
        """So many images of all were seen by the network called ``name``."""

    def learning(self, name: str, done: int, epochs: int, loss: float) -> None:
        """A network that learns on is done with so many epochs; the mean loss of the last, nats."""

    def tried(self, one: Tried) -> None:
        """A candidate was measured, or passed over."""


def train_auto(
    recipe: AutoRecipe,
    load: Load,
    *,
    out: Path,
    device: str = "auto",
    resume: bool = False,
    observer: AutoObserver,
) -> tuple[Manifest, Comparison]:
    """Try what ``recipe`` says, write the model folder ``out`` of the best, and say why it is.

    The same photos, recipe and machine give the same model, whether or not it was interrupted;
    only what the budget has no time for depends on the clock, and is named.

    Args:
        recipe: what to try.
        load: reads the photos as a preprocessing makes them; the same parts every time.
        out: the model folder to make; it appears whole or not at all.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        resume: go on with an interrupted call; begin if there is none.
        observer: told about progress, from this thread.

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
        subject = {"recipe": recipe.to_json(), "data": dataset.to_json()}
        if state.exists():
            state.load(subject)
        else:
            state.save(Checkpoint(subject, {}, {}))
        trials = _Trials(
            recipe,
            load,
            dataset,
            store=FeatureStore(state.folder),
            device=place,
            observer=observer,
        )
        try:
            trials.run()
        except (DataError, RecipeError, WeightsError):
            state.remove()  # the next try would end alike: nothing to go on from
            raise
        manifest = publish(finish(trials.trained(), trials.winning_dataset, subject), out)
        state.remove()
    return manifest, trials.comparison


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
            built(extractor)


class _Best(NamedTuple):
    """The best candidate so far."""

    name: str
    extractor: Extractor
    backbone: Backbone
    fitted: Fitted
    seen: Seen


class _Trials:
    """What was tried so far, and the best of it."""

    def __init__(
        self,
        recipe: AutoRecipe,
        load: Load,
        dataset: Dataset,
        *,
        store: FeatureStore,
        device: torch.device,
        observer: AutoObserver,
    ) -> None:
        self._recipe, self._load, self._store = recipe, load, store
        self._device, self._observer = device, observer
        self._began = time.perf_counter()
        self._loaded = (recipe.preprocessing, dataset)
        self._material = Material.of(
            dataset.train, dataset.validation, dataset.unlabelled, folds=recipe.folds
        )
        self._tried: list[Tried] = []
        self._best: _Best | None = None
        self.winning_dataset = dataset

    def run(self) -> None:
        """Try everything that there is time for; raise where no network's weights can be had."""
        failure: WeightsError | None = None
        longest_s = 0.0
        for extractor in self._recipe.extractors:
            left_s = self._recipe.budget_s - (time.perf_counter() - self._began)
            if self._best is not None and left_s < longest_s:
                self._pass_over(str(extractor), "there was no time left")
                continue
            began = time.perf_counter()
            try:
                self._try(extractor)
            except WeightsError as error:
                failure = error
                self._pass_over(str(extractor), f"its weights cannot be had: {error}")
            longest_s = max(longest_s, time.perf_counter() - began)
        if self._best is None:
            assert failure is not None  # why none was tried
            raise failure
        if self._recipe.tuning is not None and self._material.num_labels:
            self._tune(self._recipe.tuning, reserved_s=longest_s)

    @property
    def comparison(self) -> Comparison:
        """What was tried, and why the best is."""
        assert self._best is not None
        return compare(self._tried, self._best.name)

    def trained(self) -> Trained:
        """Return the network of the best candidate."""
        assert self._best is not None
        return assembled(
            self._best.extractor,
            self._best.backbone,
            self._best.fitted,
            self._recipe,
            device=self._device,
            seconds=time.perf_counter() - self._began,
            comparison=self.comparison,
            features_NF=self._best.seen.features_NF[: len(self.winning_dataset.train)],
        )

    def _try(self, extractor: Extractor) -> None:
        """Try a network as it is."""
        backbone = pretrained(extractor)
        dataset = self._dataset(extractor.preprocessing)
        seeing = Seeing(self._store, extractor, backbone, device=self._device)
        seen = self._see(seeing, dataset)
        began = time.perf_counter()
        fitted = fit_heads(seen, self._material, self._recipe)
        seconds = seeing.seconds + time.perf_counter() - began
        self._measured(str(extractor), fitted, seconds)
        if self._best is None or is_better(fitted.figures, self._best.fitted.figures):
            self._best = _Best(str(extractor), extractor, backbone, fitted, seen)
            self.winning_dataset = dataset

    def _tune(self, tuning: Tuning, *, reserved_s: float) -> None:
        """Let the best network learn on, and take what comes of it where it is better.

        Both are compared by images that neither has learnt from, those of the first fold.
        ``reserved_s`` are the seconds that looking at all images takes.
        """
        assert self._best is not None
        extractor = self._best.extractor
        name = f"{extractor}, fine-tuned"
        taught_N = self._material.taught()
        if extractor.network not in LITE_SIDES:
            self._pass_over(name, "only networks whose weights come along learn on here")
            return
        if len(taught_N) < tuning.fewest_images:
            few = f"{len(taught_N):,} photos to learn from are too few"
            self._pass_over(name, f"{few}, {tuning.fewest_images:,} are the least")
            return
        left_s = self._recipe.budget_s - (time.perf_counter() - self._began) - reserved_s
        folder = self._store.folder.parent
        if left_s <= 0 and not is_begun(folder):
            self._pass_over(name, NO_TIME)
            return
        dataset = self._dataset(extractor.preprocessing)
        tuner = Tuner(
            extractor,
            dataset.train,
            taught_N,
            tuning=tuning,
            folder=folder,
            device=self._device,
            seed=self._recipe.seed,
        )
        epochs = tuner.epochs_in(left_s)
        if epochs < tuning.fewest_epochs:
            self._pass_over(name, NO_TIME)
            return
        tuned = tuner.run(epochs, partial(self._observer.learning, name))
        seeing = Seeing(self._store, extractor, tuned.backbone, device=self._device, tuned=name)
        seen = self._see(seeing, dataset)
        first = self._material.folds[:1]
        began = time.perf_counter()
        fitted = fit_heads(seen, self._material, self._recipe, folds=first)
        before = fit_heads(self._best.seen, self._material, self._recipe, folds=first)
        seconds = tuned.seconds + seeing.seconds + time.perf_counter() - began
        self._measured(f"{self._best.name}, on the same photos", before, 0.0)
        self._measured(name, fitted, seconds)
        if is_better(fitted.figures, before.figures):
            self._best = _Best(name, extractor, tuned.backbone, fitted, seen)
            self.winning_dataset = dataset

    def _see(self, seeing: Seeing, dataset: Dataset) -> Seen:
        parts = (dataset.train, dataset.validation, dataset.unlabelled)
        present = [part for part in parts if part is not None]
        return seeing.see(present, self._material, self._recipe, self._observer.embedding)

    def _measured(self, name: str, fitted: Fitted, seconds: float) -> None:
        head = "principal components of what views do not change"
        if fitted.shrinkage is not None:
            head = f"linear discriminants, shrinkage {fitted.shrinkage:g}"
            if fitted.emphasis != 1:
                head += f", last layer times {fitted.emphasis:.1f}"
        one = Tried.with_figures(name, fitted.figures, seconds=seconds, head=head)
        self._tried.append(one)
        self._observer.tried(one)

    def _dataset(self, preprocessing: Preprocessing) -> Dataset:
        if self._loaded[0] != preprocessing:
            self._loaded = (preprocessing, self._load(preprocessing))
        return self._loaded[1]

    def _pass_over(self, name: str, why: str) -> None:
        one = Tried(name=name, seconds=0.0, not_tried=why)
        self._tried.append(one)
        self._observer.tried(one)
