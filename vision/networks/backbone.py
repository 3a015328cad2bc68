"""Known networks as feature extractors: normalised images in, one row of features per image out.

A backbone is a network of torchvision or timm (``torchvision:NAME``, ``timm:NAME``), cut behind one
of its layers.

Shape suffixes: B images, C channels, H x W pixels, F features.
"""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any, Final, Literal, NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import normalize

from vision.image.preprocessing import Preprocessing
from vision.networks.feature_extractor import PENULTIMATE, make_feature_extractor
from vision.networks.model_zoo import (
    CHANNELS,
    create_model,
    native_size,
    published_weights,
    split_name,
    timm_library,
)

FIRST_WEIGHTS: Final = "IMAGENET1K_V1"  # torchvision's name for them
INTERPOLATIONS: Final[dict[str, Literal["bilinear", "bicubic"]]] = {
    "bicubic": "bicubic",
    "lanczos": "bicubic",
}
PROBES: Final = 2  # images of a trial run
SEPARATOR: Final = "+"  # between the names of layers


class Pooling(NamedTuple):
    """How a layer's output becomes one row per image."""

    width: int  # numbers
    axes: tuple[int, ...]  # to average over: pixels or tokens


class Backbone(nn.Module):
    """A known network up to some of its layers, whose outputs are averaged to one row per image.

    Maps are averaged over their pixels, tokens over all of them. Rows of several layers are put
    side by side, scaled so that every layer has the same share of the length. The parameters keep
    the library's names, below ``body``.
    """

    def __init__(
        self,
        body: nn.Module,
        *,
        poolings: Sequence[Pooling],
        full_shapes: Mapping[str, torch.Size],
        side: int,
        mirrored: bool = False,
    ) -> None:
        super().__init__()
        self.body = body
        self.mirrored = mirrored  # features are the mean over a picture and its mirror image
        self.side = side  # pixels, of the images that the network was made for
        self.widths = tuple(one.width for one in poolings)  # of each layer
        self.width = sum(self.widths)  # F
        # Of all tensors of the uncut network, by the library's name.
        self.full_shapes = dict(full_shapes)
        self._axes = [one.axes for one in poolings]

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Return features (B, F) of normalised images (B, C, H, W)."""
        if self.mirrored:
            return (self._rows(images_BCHW) + self._rows(images_BCHW.flip(-1))) / 2
        return self._rows(images_BCHW)

    def without_mirroring(self) -> Self:
        """Return this backbone, sharing its tensors, of pictures without their mirror images."""
        twin = type(self).__new__(type(self))
        twin.__dict__ = {**self.__dict__, "mirrored": False}
        return twin

    def forward_batched(self, images_BCHW: Tensor) -> Tensor:
        """Return the same, with both pictures of each image in one batch.

        For exports: a graph of half the nodes, and a tenth quicker with OpenVINO. torch itself is
        slower with larger batches.
        """
        if not self.mirrored:
            return self._rows(images_BCHW)
        rows_BF = self._rows(torch.cat([images_BCHW, images_BCHW.flip(-1)]))
        count = images_BCHW.shape[0]
        return (rows_BF[:count] + rows_BF[count:]) / 2

    def _rows(self, images_BCHW: Tensor) -> Tensor:
        outputs = _as_list(self.body(images_BCHW))
        rows: list[Tensor] = [
            output.mean(dim=axes) if axes else output
            for output, axes in zip(outputs, self._axes, strict=True)
        ]
        if len(rows) == 1:
            return rows[0]
        length = (self.width / len(rows)) ** 0.5
        return torch.cat([length * normalize(row_BF, dim=1) for row_BF in rows], dim=1)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Return a copy whose parts learn or measure as here; a traced body's copies all learn."""
        twin = type(self).__new__(type(self))
        memo[id(self)] = twin
        twin.__dict__ = deepcopy(self.__dict__, memo)
        twin.body.train(self.body.training)
        for name, part in twin.body.named_modules():
            part.training = self.body.get_submodule(name).training
        return twin

    @property
    def has_fixed_size(self) -> bool:
        """Whether images of twice the pixels are not taken: the network is bound to its size."""
        return not self.accepts_size(2 * self.side)

    def accepts_size(self, side: int) -> bool:
        """Say whether images of ``side`` x ``side`` pixels are not too small or of a wrong size."""
        try:
            return None not in _output_shapes(self.body, side)
        except Exception:  # what the networks of two libraries raise here has no common base
            return False


def build_backbone(
    name: str, layer: str = PENULTIMATE, *, side: int | None = None, mirrored: bool = False
) -> Backbone:
    """Return the network called ``name`` up to ``layer``, with random weights.

    It is made for images of ``side`` pixels where the library lets choose (see ``accepts_size``).

    The layer is ``penultimate`` (the input of the last linear layer), the name of a module or graph
    node, for the VGG family of torchvision one of ``pool1`` to ``pool5``, ``fc6`` and ``fc7``
    (after their ReLU), or several of these with ``+`` between them. The weights are drawn from
    torch's global generator.

    Raises:
        ValueError: there is no such network or layer, timm is not installed, or what the layer
            gives cannot be made one row per image.
    """
    layers = layer.split(SEPARATOR)
    if len(set(layers)) < len(layers):
        raise ValueError(f"layer {layer!r} names a layer twice")
    network = create_model(name, side=side)
    full_shapes = {key: tensor.shape for key, tensor in network.state_dict().items()}
    made_for = native_size(network)
    body = make_feature_extractor(network, name, layers)
    poolings: list[Pooling] = []
    for part, shape in zip(layers, _output_shapes(body, made_for), strict=True):
        pooling = _pooling_of(shape)
        if pooling is None:
            came = f"shape {tuple(shape)} of {PROBES} images" if shape else "no tensor"
            raise ValueError(f"layer {part!r} of {name} gives {came}, not one row or map per image")
        poolings.append(pooling)
    return Backbone(
        body, poolings=poolings, full_shapes=full_shapes, side=made_for, mirrored=mirrored
    )


def default_weights(name: str) -> str:
    """Return the name of torchvision's first weights for a network, or of its best.

    Raises:
        ValueError: there is no such network.
    """
    known = published_weights(split_name(name)[1])
    return FIRST_WEIGHTS if FIRST_WEIGHTS in known else str(known["DEFAULT"].name)


def default_preprocessing(
    name: str, *, weights: str | None = None, size: int | None = None
) -> Preprocessing:
    """Return how images are prepared for the pretrained weights of the network called ``name``.

    Of torchvision's published weights those called ``weights`` decide, or the first where that is
    none of their names; of timm's those of the name's tag. ``size`` replaces the side in pixels.

    Raises:
        ValueError: there is no such network, timm is not installed, or nothing is known about the
            network's weights.
    """
    library, model = split_name(name)
    if library == "torchvision":
        known = published_weights(model)
        chosen = known[weights if weights in known else default_weights(name)].transforms()
        own = int(chosen.crop_size[0])
        fraction, squash = own / chosen.resize_size[0], False
        mean, std, interpolation = chosen.mean, chosen.std, chosen.interpolation.value
    else:
        chosen = timm_library().get_pretrained_cfg(model)
        if chosen is None or chosen.input_size[0] != CHANNELS:
            raise ValueError(f"timm does not say how images are prepared for {name}")
        own = int(chosen.input_size[-1])
        fraction, squash = chosen.crop_pct, chosen.crop_mode == "squash"
        mean, std, interpolation = chosen.mean, chosen.std, chosen.interpolation
    return Preprocessing(
        size=own if size is None else size,
        channels=CHANNELS,
        mean=tuple(mean),
        std=tuple(std),
        fit="squash" if squash else "crop",
        crop_fraction=min(1.0, fraction),
        interpolation=INTERPOLATIONS.get(interpolation, "bilinear"),
    )


def _as_list(output: Any) -> list[Any]:
    """Return what each layer gives, in the order they were asked for."""
    if isinstance(output, dict):
        return [output[str(position)] for position in range(len(output))]
    return [output]


def _output_shapes(body: nn.Module, side: int) -> list[torch.Size | None]:
    """Return the shapes of what the layers give for two images of ``side`` pixels.

    Runs on torch's meta device, which counts without computing, and draws no random number. What is
    no tensor has none.
    """
    tensors = {**dict(body.named_parameters()), **dict(body.named_buffers())}
    on_meta = {name: tensor.to("meta") for name, tensor in tensors.items()}
    images = torch.empty(PROBES, CHANNELS, side, side, device="meta")
    was_training = body.training
    try:
        with torch.inference_mode():
            outputs = functional_call(body.eval(), on_meta, (images,))
    finally:
        body.train(was_training)
    return [one.shape if isinstance(one, Tensor) else None for one in _as_list(outputs)]


def _pooling_of(shape: torch.Size | None) -> Pooling | None:
    """Return how a layer's output of square images becomes one row per image."""
    match tuple(shape or ()):
        case (2, features):
            return Pooling(features, ())
        case (2, _, features):
            return Pooling(features, (1,))
        case (2, height, width, features) if height == width != features:
            return Pooling(features, (1, 2))  # channels last, as in Swin
        case (2, features, _, _):
            return Pooling(features, (2, 3))
    return None
