"""A recipe and what `--data` names in, the recipe for the bits that its gray pictures use out."""

from dataclasses import replace

from cli.console import say
from training.recipe import Recipe
from vision.depth import FULL
from vision.image import harden_pillow


def with_depth_of(data: str, recipe: Recipe) -> Recipe:
    """Return the recipe for so many bits as the gray pictures of 16 bits in ``data`` use, if any.

    Raises:
        DatasetError: the data are missing, or it cannot be told what they are.
    """
    from training.sample_depth import find_depth  # noqa: PLC0415 - keeps `--help` quick

    harden_pillow()
    preprocessing = recipe.preprocessing
    depth = find_depth(data) if preprocessing.bits == FULL else None
    if depth is None or depth == FULL:
        return recipe
    say(
        f"gray pictures of {FULL} bits use only {depth} of them here, and are read like that, also "
        f"when the model is used; --bits {FULL} reads them as they are"
    )
    return replace(recipe, preprocessing=replace(preprocessing, bits=depth))
