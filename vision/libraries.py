"""The networks that torchvision and timm know: a name in, a network with random weights out.

Names are ``torchvision:NAME`` and ``timm:NAME``. A library is imported when one of its networks is
asked for: it takes seconds and memory, and a server of a small network of our own needs neither.
"""

import difflib
from types import ModuleType
from typing import Any, Final, cast

from torch import nn

LIBRARIES: Final = ("torchvision", "timm")
CHANNELS: Final = 3  # every one of these networks looks at RGB
USUAL_SIDE: Final = 224  # pixels; torchvision's networks all take it
TIMM_MISSING: Final = "timm is not installed: pip install 'lookalike[timm]'"
CLOSE: Final = 5  # names offered in place of an unknown one


def split_name(name: str) -> tuple[str, str]:
    """Return library and model of ``torchvision:NAME`` or ``timm:NAME``.

    Raises:
        ValueError: there is no such network, or timm is not installed.
    """
    library, _, model = name.partition(":")
    if library not in LIBRARIES:
        raise ValueError(f"unknown network {name!r}; expected torchvision:NAME or timm:NAME")
    if library == "torchvision":
        known = torchvision_models().list_models(module=torchvision_models())
    else:
        known = timm_library().list_models()
    if model not in known:
        close = difflib.get_close_matches(model, known, n=CLOSE, cutoff=0.5)
        hint = ", ".join(f"{library}:{match}" for match in close)
        raise ValueError(
            f"unknown network {name!r}" + (f"; close to it are {hint}" if hint else "")
        )
    return library, model


def build_known(name: str) -> nn.Module:
    """Return the whole network called ``name``, with its classifier and random weights.

    Raises:
        ValueError: there is no such network, or timm is not installed.
    """
    library, model = split_name(name)
    if library == "torchvision":
        settings: dict[str, Any] = {}
        if model in ("googlenet", "inception_v3"):
            # Their weights want [-1, 1]; transform_input makes it of ImageNet's normalisation.
            settings = {"transform_input": True, "init_weights": True}
        return cast(nn.Module, torchvision_models().get_model(model, weights=None, **settings))
    network = cast(nn.Module, timm_library().create_model(model, pretrained=False))
    if not hasattr(network, "reset_classifier"):
        raise ValueError(f"{name} is not a network for classification")
    return network


def own_side(network: nn.Module) -> int:
    """Return the side, in pixels, of the images that ``network`` was made for."""
    described = getattr(network, "pretrained_cfg", None) or {}
    return int(described.get("input_size", (CHANNELS, USUAL_SIDE, USUAL_SIDE))[-1])


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
