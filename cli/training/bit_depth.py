"""What `--data` names in, the bits that its gray pictures use out; a recipe for them."""

from dataclasses import replace

from cli.support.console import print_info
from training.recipes.recipe import Recipe
from vision.image.bit_depth import FULL
from vision.image.decode import harden_pillow
from vision.image.preprocessing import Preprocessing


def with_bit_depth(data: str, recipe: Recipe) -> Recipe:
    """Return the recipe for so many bits as the gray pictures of 16 bits in ``data`` use, if any.

    Raises:
        DatasetError: the data are missing, or it cannot be told what they are.
    """
    bits = detect_bit_depth(data, recipe.preprocessing)
    return replace(recipe, preprocessing=replace(recipe.preprocessing, bits=bits))


def detect_bit_depth(data: str, preprocessing: Preprocessing) -> int:
    """Return how many bits to read gray pictures of 16 bits with, and say so where it is news.

    Raises:
        DatasetError: the data are missing, or it cannot be told what they are.
    """
    from training.data.bit_depth import find_depths  # noqa: PLC0415 - keeps `--help` quick

    harden_pillow()
    depth, in_colour = find_depths(data) if preprocessing.bits == FULL else (None, None)
    if in_colour is not None and in_colour < FULL:
        print_info(
            f"pictures of {FULL} bits in colour, or with alpha, use only {in_colour} of them here, "
            "and will be seen as dark ones: the upper 8 bits are read; save them with samples up "
            "to 65,535, or with 8 bits"
        )
    if depth is None or depth == FULL:
        return preprocessing.bits
    print_info(
        f"gray pictures of {FULL} bits use only {depth} of them here, and are read like that, also "
        f"when the model is used; --bits {FULL} reads them as they are"
    )
    return depth
