"""The networks that torchvision and timm know: a name in, a network with random weights out.

Names are ``torchvision:NAME``, ``timm:NAME`` and ``timm:NAME.TAG``: the tag chooses among the
published weights, and with them the size of image that some networks are made for. A library is
imported when one of its networks is asked for: it takes seconds and memory, and a server of a small
network of our own needs neither.
"""

import difflib
from types import ModuleType
from typing import Any, Final, cast

from torch import nn

LIBRARIES: Final = ("torchvision", "timm")
CHANNELS: Final = 3  # every one of these networks looks at RGB
USUAL_SIDE: Final = 224  # pixels; torchvision's other networks all take it
TIMM_MISSING: Final = "timm is not installed: pip install timm"
TORCHVISION_VIT: Final = "vit_"
CLOSE: Final = 5  # names offered in place of an unknown one


def split_name(name: str) -> tuple[str, str]:
    """Return library and model of ``torchvision:NAME``, ``timm:NAME`` or ``timm:NAME.TAG``.

    Raises:
        ValueError: there is no such network or tag, or timm is not installed.
    """
    library, _, model = name.partition(":")
    if library not in LIBRARIES:
        raise ValueError(f"unknown network {name!r}; expected torchvision:NAME or timm:NAME")
    network, _, tag = model.partition(".")
    if library == "torchvision":
        known = torchvision_models().list_models(module=torchvision_models())
        tags = list(published_weights(network)) if network in known else []
    else:
        known = timm_library().list_models()
        tags = _timm_tags(network) if network in known else []
    if network not in known:
        close = difflib.get_close_matches(network.lower(), known, n=CLOSE, cutoff=0.5)
        hint = ", ".join(f"{library}:{match}" for match in close)
        raise ValueError(
            f"unknown network {name!r}" + (f"; close to it are {hint}" if hint else "")
        )
    if library == "torchvision" and network != model:
        raise ValueError(
            f"unknown network {name!r}: torchvision's weights are named apart, as in "
            f"--backbone torchvision:{network} --weights {tags[0]} (or {', '.join(tags[1:])})"
        )
    if network != model and tag not in tags:
        known_tags = f"tags of timm:{network} are {', '.join(tags)}" if tags else "it has no tags"
        raise ValueError(f"timm:{network} has no weights with the tag {tag!r}; {known_tags}")
    return library, model


def published_weights(model: str) -> dict[str, Any]:
    """Return what torchvision publishes for its network ``model``, by name, ``DEFAULT`` last."""
    return dict(torchvision_models().get_model_weights(model).__members__)


def _timm_tags(network: str) -> list[str]:
    from timm.models import get_arch_pretrained_cfgs  # noqa: PLC0415 - optional

    return [name.partition(".")[2] for name in get_arch_pretrained_cfgs(network)]


def create_model(name: str, *, side: int | None = None) -> nn.Module:
    """Return the whole network called ``name``, with its classifier and random weights.

    torchvision's vision transformers are made for images of ``side`` pixels, where it is given.

    Raises:
        ValueError: there is no such network, it cannot be made for such images, or timm is not
            installed.
    """
    library, model = split_name(name)
    if library == "torchvision":
        settings: dict[str, Any] = {}
        if model in ("googlenet", "inception_v3"):
            # Their weights want [-1, 1]; transform_input makes it of ImageNet's normalisation.
            settings = {"transform_input": True, "init_weights": True}
        if model.startswith(TORCHVISION_VIT) and side is not None:
            patch = int(model.rpartition("_")[2])
            if side % patch:
                raise ValueError(
                    f"{name} takes images whose sides are multiples of {patch} pixels, "
                    f"not of {side} pixels"
                )
            settings = {"image_size": side}
        return cast(nn.Module, torchvision_models().get_model(model, weights=None, **settings))
    network = cast(nn.Module, timm_library().create_model(model, pretrained=False))
    if not hasattr(network, "reset_classifier"):
        raise ValueError(f"{name} is not a network for classification")
    return network


def native_size(network: nn.Module) -> int:
    """Return the side, in pixels, of the images that ``network`` was made for."""
    described = getattr(network, "pretrained_cfg", None) or {}
    if described:
        return int(described["input_size"][-1])
    return int(getattr(network, "image_size", USUAL_SIDE))  # of torchvision's transformers


def torchvision_models() -> ModuleType:
    """Return torchvision's package of networks."""
    import torchvision.models  # noqa: PLC0415 - slow

    return cast(ModuleType, torchvision.models)


def timm_library() -> ModuleType:
    """Return timm.

    Raises:
        ValueError: it is not installed.
    """
    try:
        import timm  # noqa: PLC0415 - optional
    except ImportError as error:
        raise ValueError(TIMM_MISSING) from error
    library: ModuleType = timm  # typed or not, as installed
    return library


def tracing_tools(name: str) -> ModuleType:
    """Return what cuts the networks of the library of ``name`` by torch.fx.

    timm's is torchvision's, told which of timm's modules must not be traced.
    """
    if split_name(name)[0] == "timm":
        import timm.models  # noqa: PLC0415 - optional

        timm_tools: ModuleType = timm.models
        return timm_tools
    import torchvision.models.feature_extraction  # noqa: PLC0415

    return cast(ModuleType, torchvision.models.feature_extraction)
