"""`auto`: one's own photos in, the best model folder that the time allows out.

Photos are embedded once by each of several pretrained networks; heads in closed form are fitted to
that and judged by photos held out; the best of all becomes the model. While it runs, its state lies
in a folder beside the model folder, ``OUT.training``.

Shape suffixes: N images, V views, C channels, H x W pixels.
"""

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Final, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from training.auto_recipe import AutoRecipe, Extractor
from training.calibration import choose_temperature
from training.candidates import Fitted, Heads, Material, Views, fit_heads
from training.checkpoint import Checkpoint, CheckpointFolder
from training.checks import refuse_existing, refuse_unfinished, state_folder
from training.closed_form import Linear
from training.data import Dataset
from training.distributed import world_size
from training.errors import RecipeError, WeightsError
from training.features import FeatureStore
from training.images import LabelledImages
from training.made_views import VIEWS, made_views
from training.publish import Trained, environment, finish, publish
from training.train import reproducible
from training.tried import Comparison, Tried, compare, is_better
from training.weights import load_pretrained
from vision.backbone import Backbone, build_backbone
from vision.encoder import pick_device
from vision.feature_encoder import feature_encoder
from vision.manifest import Manifest
from vision.network import Network, build_network
from vision.preprocess import Preprocessing

VIEWED: Final = 250  # photos that views are made of, to search the very photo with

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
            _built(extractor)


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
        backbone = _pretrained(extractor)
        dataset = self._dataset(extractor.preprocessing)
        name = str(extractor)
        parts = [
            p for p in (dataset.train, dataset.validation, dataset.unlabelled) if p is not None
        ]
        viewed, positions_N = self._viewed(parts)
        total = sum(map(len, parts)) + VIEWS * len(viewed)
        embed = _Embedder(
            self._store, extractor, backbone, self._device, self._observer, total=total
        )
        features_NF = np.concatenate(
            [embed(f"part {place}", part.images_NCHW) for place, part in enumerate(parts)]
        )
        views_VNCHW = made_views(viewed.images_NCHW, viewed.contents_N, seed=self._recipe.seed)
        views_QF = embed("views", views_VNCHW.reshape(-1, *views_VNCHW.shape[2:]))
        views = Views(positions_N, views_QF.reshape(VIEWS, len(viewed), -1))
        began = time.perf_counter()
        fitted = fit_heads(features_NF, self._material, self._recipe, views=views)
        head = "principal components"
        if fitted.shrinkage is not None:
            head = f"linear discriminants, shrinkage {fitted.shrinkage:g}"
        one = Tried.with_figures(
            name,
            fitted.figures,
            seconds=embed.seconds + time.perf_counter() - began,
            head=head,
        )
        self._tried.append(one)
        self._observer.tried(one)
        if self._best is None or is_better(fitted.figures, self._best[2].figures):
            self._best = extractor, backbone, fitted
            self.winning_dataset = dataset

    def _viewed(self, parts: list[LabelledImages]) -> tuple[LabelledImages, NDArray[np.int64]]:
        """Return photos to make views of, held out first, and their places among all images."""
        (fold, *_) = self._material.folds
        held_out = np.flatnonzero(self._material.folds_N == fold)
        part, start = (parts[0], 0)
        if held_out[0] >= len(parts[0]):  # the validation part
            part, start = parts[1], len(parts[0])
        order = np.argsort(self._material.contents_N[held_out], kind="stable")[:VIEWED]
        positions_N = np.sort(held_out[order])
        return part.only(positions_N - start), positions_N

    def _dataset(self, preprocessing: Preprocessing) -> Dataset:
        if self._loaded[0] != preprocessing:
            self._loaded = (preprocessing, self._load(preprocessing))
        return self._loaded[1]

    def _pass_over(self, extractor: Extractor, why: str) -> None:
        one = Tried(name=str(extractor), seconds=0.0, not_tried=why)
        self._tried.append(one)
        self._observer.tried(one)


class _Embedder:
    """Computes what one network makes of images, or finds it where it was kept."""

    def __init__(
        self,
        store: FeatureStore,
        extractor: Extractor,
        backbone: Backbone,
        device: torch.device,
        observer: AutoObserver,
        *,
        total: int,
    ) -> None:
        self.seconds = 0.0
        self._store, self._observer = store, observer
        self._name, self._total, self._done = str(extractor), total, 0
        self._key = hashlib.sha256(json.dumps(asdict(extractor)).encode()).hexdigest()
        self._make = lambda: feature_encoder(
            backbone, extractor.preprocessing, device, images=total
        )

    def __call__(self, what: str, images_NCHW: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return features (N, F) of images that are called ``what``."""
        features_NF, seconds = self._store.features(
            f"{self._key} {what}",
            images_NCHW,
            self._make,
            lambda done: self._observer.embedding(self._name, self._done + done, self._total),
        )
        self._done += len(images_NCHW)
        self.seconds += seconds
        return features_NF


def _pretrained(extractor: Extractor) -> Backbone:
    """Return the network with its weights, on the CPU.

    Raises:
        RecipeError: there is no such network or layer, or it does not take such images.
        WeightsError: its weights cannot be had.
    """
    backbone = _built(extractor)
    load_pretrained(backbone, extractor.network, extractor.weights, sha256=extractor.weights_sha256)
    return backbone.eval()


def _built(extractor: Extractor) -> Backbone:
    """Return the network with random weights.

    Raises:
        RecipeError: there is no such network or layer, or it does not take such images.
    """
    side = extractor.preprocessing.size
    try:
        backbone = build_backbone(
            extractor.network, extractor.embedding_layer, side=side, mirrored=True
        )
    except ValueError as error:
        raise RecipeError(str(error)) from error
    if not backbone.takes(side):
        raise RecipeError(f"{extractor.network} does not take images of {side} pixels")
    return backbone


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
