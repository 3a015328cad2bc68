"""`auto`: one's own photos in, the best model folder that the time allows out.

Photos are embedded once by each of several pretrained networks; heads in closed form are fitted to
that and judged by photos held out; the best of all becomes the model. While it runs, its state lies
in a folder beside the model folder, ``OUT.training``.

Shape suffixes: N images, V views, C channels, H x W pixels.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol

import torch
from torch import nn

from training.auto_recipe import AutoRecipe, Extractor
from training.calibration import choose_temperature
from training.candidates import Fitted, Heads, Material, fit_heads
from training.checkpoint import Checkpoint, CheckpointFolder
from training.checks import refuse_existing, refuse_unfinished, state_folder
from training.closed_form import Linear
from training.data import Dataset
from training.distributed import world_size
from training.errors import RecipeError, WeightsError
from training.features import FeatureStore
from training.publish import Trained, environment, finish, publish
from training.seeing import Seeing, built, pretrained
from training.train import reproducible
from training.tried import Comparison, Tried, compare, is_better
from vision.backbone import Backbone
from vision.encoder import pick_device
from vision.manifest import Manifest
from vision.network import Network, build_network
from vision.preprocess import Preprocessing

SEARCHED: Final = 200  # photos that views are made of, to search the very photo with
CHANGED: Final = 400  # others, whose views tell how features change with light and angle
OTHER_VIEWS: Final = 1 << 32  # the seed of these

Load = Callable[[Preprocessing], Dataset]


class AutoObserver(Protocol):
    """Told about progress, in the order of events."""

    def embedding(self, name: str, done: int, total: int) -> None:
        """So many images of all were seen by the network called ``name``."""

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
        trials.run()
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
        self._best: tuple[Extractor, Backbone, Fitted] | None = None
        self.winning_dataset = dataset

    def run(self) -> None:
        """Try everything that there is time for.

        Raises:
            WeightsError: the weights of no network can be had.
        """
        failure: WeightsError | None = None
        longest_s = 0.0
        for extractor in self._recipe.extractors:
            left_s = self._recipe.budget_s - (time.perf_counter() - self._began)
            if self._best is not None and left_s < longest_s:
                self._pass_over(extractor, "there was no time left")
                continue
            began = time.perf_counter()
            try:
                self._try(extractor)
            except WeightsError as error:
                failure = error
                self._pass_over(extractor, f"its weights cannot be had: {error}")
            longest_s = max(longest_s, time.perf_counter() - began)
        if self._best is None:
            assert failure is not None  # why none was tried
            raise failure

    @property
    def comparison(self) -> Comparison:
        """What was tried, and why the best is."""
        assert self._best is not None
        return compare(self._tried, str(self._best[0]))

    def trained(self) -> Trained:
        """Return the network of the best candidate."""
        assert self._best is not None
        extractor, backbone, fitted = self._best
        heads = fitted.heads
        architecture = self._recipe.architecture(
            extractor,
            num_labels=self._material.num_labels,
            item_width=len(heads.item.bias_D),
            kind_width=0 if heads.kind is None else len(heads.kind.bias_D),
        )
        network = build_network(architecture, extractor.preprocessing)
        network.features.load_state_dict(backbone.state_dict())
        _set_heads(network, heads)
        network = network.to(self._device)
        seconds = time.perf_counter() - self._began
        figures = {
            "train_seconds": seconds,
            "parameters": float(sum(p.numel() for p in network.parameters())),
            "held_out_images": float(fitted.figures.images),
        }
        for name in ("accuracy", "r_at_1", "same_item"):
            value = getattr(fitted.figures, name)
            if value is not None:
                figures[f"held_out_{name}"] = value
        return Trained(
            recipe=self._recipe.name,
            architecture=architecture,
            preprocessing=extractor.preprocessing,
            network=network,
            device=self._device,
            temperature=choose_temperature(fitted.logits_NL, fitted.labels_N)
            if self._material.num_labels
            else 1.0,
            figures=figures,
            history={
                "history": [],
                "tried": self.comparison.to_json(),
                "environment": environment(self._device),
            },
        )

    def _try(self, extractor: Extractor) -> None:
        backbone = pretrained(extractor)
        dataset = self._dataset(extractor.preprocessing)
        name = str(extractor)
        parts = [
            p for p in (dataset.train, dataset.validation, dataset.unlabelled) if p is not None
        ]
        seeing = Seeing(self._store, extractor, backbone, device=self._device)
        seen = seeing.see(parts, self._material, self._recipe, self._observer.embedding)
        began = time.perf_counter()
        fitted = fit_heads(seen, self._material, self._recipe)
        head = "principal components of what views do not change"
        if fitted.shrinkage is not None:
            head = f"linear discriminants, shrinkage {fitted.shrinkage:g}"
        one = Tried.with_figures(
            name,
            fitted.figures,
            seconds=seeing.seconds + time.perf_counter() - began,
            head=head,
        )
        self._tried.append(one)
        self._observer.tried(one)
        if self._best is None or is_better(fitted.figures, self._best[2].figures):
            self._best = extractor, backbone, fitted
            self.winning_dataset = dataset

    def _dataset(self, preprocessing: Preprocessing) -> Dataset:
        if self._loaded[0] != preprocessing:
            self._loaded = (preprocessing, self._load(preprocessing))
        return self._loaded[1]

    def _pass_over(self, extractor: Extractor, why: str) -> None:
        one = Tried(name=str(extractor), seconds=0.0, not_tried=why)
        self._tried.append(one)
        self._observer.tried(one)


@torch.no_grad()
def _set_heads(network: Network, heads: Heads) -> None:
    """Give the network's linear layers the weights that were fitted."""
    if heads.kind is None or heads.scores is None:
        _set(network.embedding, heads.item)
        return
    _set(network.embedding.get_submodule("item"), heads.item)
    _set(network.embedding.get_submodule("kind"), heads.kind)
    _set(network.classifier, heads.scores)


def _set(layer: nn.Module, fitted: Linear) -> None:
    assert isinstance(layer, nn.Linear)
    layer.weight.copy_(torch.from_numpy(fitted.weight_DF))
    layer.bias.copy_(torch.from_numpy(fitted.bias_D))
