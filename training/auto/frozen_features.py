"""A pretrained network and images in, what it sees of them and of views of some out.

Shape suffixes: N images, V views of each, Q views in all, C channels, H x W pixels, F features, I
of them that tell items apart.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import cached_property
from typing import Final, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from training.auto.feature_cache import FeatureStore
from training.data.images.labelled_images import LabelledImages
from training.errors import RecipeError
from training.evaluation.views import VIEWS, make_views
from training.fit.initialization.pretrained import load_pretrained
from training.heads.cross_validation import CrossValidationData, ExtractedFeatures
from training.progress import ImagesDone, Progress
from training.recipes.auto_recipe import AutoRecipe, Extractor
from vision.inference.feature_encoder import FeatureEncoder, feature_encoder
from vision.networks.backbone import Backbone, build_backbone
from vision.networks.feature_extractor import PENULTIMATE

QUERY_PHOTOS: Final = 200  # photos that views are made of, to search the very photo with
VIEW_PHOTOS: Final = 800  # others, whose views tell how features change with light and angle
VIEWS_EACH: Final = 1  # views of each: more photos tell more than more views of them
OTHER_VIEWS: Final = 1 << 32  # the seed of these
EMBEDDING: Final = "embedding images"


class FeatureExtraction:
    """Computes what one network makes of a training's images, or finds it where it was kept."""

    def __init__(
        self,
        store: FeatureStore,
        extractor: Extractor,
        backbone: Backbone,
        *,
        device: torch.device,
        tuned: str | None = None,
    ) -> None:
        """Take the network with its weights; if it has learnt on, it is called ``tuned``.

        The last layer of one that has learnt on tells kinds apart only: with it, made views find
        the very photo in 92 of 100 cases, without it in 99.
        """
        self._name = tuned or str(extractor)
        last = tuned is not None and PENULTIMATE in extractor.item_layers
        self._columns = sum(backbone.widths[: len(extractor.item_layers) - last])
        self._last_columns = _columns_of(PENULTIMATE, extractor, backbone)
        self.seconds = 0.0  # that it took, in all
        self._store, self._extractor, self._backbone = store, extractor, backbone
        self._device = device
        self._key = hashlib.sha256(json.dumps([self._name, asdict(extractor)]).encode()).hexdigest()
        self._report: Callable[[int], None] = lambda _: None
        self._total, self._done = 0, 0

    def extract(
        self,
        parts: Sequence[LabelledImages],
        cv_data: CrossValidationData,
        recipe: AutoRecipe,
        progress: Progress,
    ) -> ExtractedFeatures:
        """Return what the network sees of all images, one part after another.

        Raises:
            CheckpointError: the features cannot be kept.
        """
        viewed_N, changed_N = sample_photos(cv_data)
        made = VIEWS * len(viewed_N) + VIEWS_EACH * len(changed_N)
        self._total = len(cv_data.labels_N) + made
        self._done = 0
        self._report = lambda done: progress(ImagesDone(EMBEDDING, done, self._total))
        features_NF = np.concatenate(
            [self._features(f"part {place}", p.images_NCHW) for place, p in enumerate(parts)]
        )
        views_VNF, changed_VNF = (
            self._views(select_photos(parts, positions_N), seed=seed, views=views)
            for positions_N, seed, views in (
                (viewed_N, recipe.seed, VIEWS),
                (changed_N, OTHER_VIEWS, VIEWS_EACH),
            )
        )
        columns = self._columns
        changes_VNI = (changed_VNF - features_NF[changed_N])[..., :columns]
        return ExtractedFeatures(
            features_NF=features_NF,
            item_columns=columns,
            last_columns=self._last_columns,
            changes_QI=changes_VNI.reshape(-1, columns),
            viewed_N=viewed_N,
            views_VNF=views_VNF,
        )

    def _views(self, photos: "Photos", *, seed: int, views: int) -> NDArray[np.float32]:
        """Return features (V, N, F) of made views."""
        views_VNCHW = make_views(photos.images_NCHW, photos.contents_N, seed=seed, views=views)
        features_QF = self._features(
            f"views {seed}", views_VNCHW.reshape(-1, *views_VNCHW.shape[2:])
        )
        return features_QF.reshape(views, len(photos.contents_N), -1)

    def _features(self, what: str, images_NCHW: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return features (N, F) of images that are called ``what``."""
        features_NF, seconds = self._store.features(
            f"{self._key} {what}",
            images_NCHW,
            lambda: self._encoder,
            lambda done: self._report(self._done + done),
        )
        self._done += len(images_NCHW)
        self.seconds += seconds
        return features_NF

    @cached_property
    def _encoder(self) -> FeatureEncoder:
        return feature_encoder(
            self._backbone,
            self._extractor.preprocessing,
            self._device,
            images=self._total,
        )


class Photos(NamedTuple):
    """Pixels and the numbers of their files."""

    images_NCHW: NDArray[np.uint8]
    contents_N: NDArray[np.uint64]


def sample_photos(cv_data: CrossValidationData) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return photos to search with, of the first fold, and others that tell what views change.

    They are drawn by their contents, which are hashes.
    """
    (fold, *_) = cv_data.folds
    order_N = np.argsort(cv_data.contents_N, kind="stable")
    first_N = cv_data.folds_N[order_N] == fold
    return np.sort(order_N[first_N][:QUERY_PHOTOS]), np.sort(order_N[~first_N][:VIEW_PHOTOS])


def select_photos(parts: Sequence[LabelledImages], positions_N: NDArray[np.int64]) -> Photos:
    """Return photos by their places among all parts, one part after another."""
    ends = np.cumsum([len(part) for part in parts])
    some = [
        part.take(positions_N[(positions_N >= start) & (positions_N < end)] - start)
        for part, start, end in zip(parts, ends - [len(part) for part in parts], ends, strict=True)
    ]
    return Photos(
        np.concatenate([part.images_NCHW for part in some]),
        np.concatenate([part.contents_N for part in some]),
    )


def _columns_of(layer: str, extractor: Extractor, backbone: Backbone) -> slice:
    """Return where the features of a layer lie; nowhere if it is none of the extractor's."""
    layers = (*extractor.item_layers, *extractor.kind_layers)
    if layer not in layers:
        return slice(0, 0)
    place = layers.index(layer)
    start = sum(backbone.widths[:place])
    return slice(start, start + backbone.widths[place])


def load_extractor(extractor: Extractor) -> Backbone:
    """Return the network with its weights, on the CPU.

    Raises:
        RecipeError: there is no such network or layer, or it does not take such images.
        WeightsError: its weights cannot be had.
    """
    backbone = build_extractor(extractor)
    load_pretrained(backbone, extractor.network, extractor.weights, sha256=extractor.weights_sha256)
    return backbone.eval()


def build_extractor(extractor: Extractor) -> Backbone:
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
    if not backbone.accepts_size(side):
        raise RecipeError(f"{extractor.network} does not take images of {side} pixels")
    return backbone
