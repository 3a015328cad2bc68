"""What the neighbours say a picture is: hits in, labels with their share of the votes out."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from index.items.item import Hit

TEMPERATURE: Final = 0.07  # cosine by which a hit must be nearer for e times the weight


@dataclass(frozen=True, slots=True)
class Vote:
    """One label, and how much speaks for it."""

    label: str
    share: float  # of all votes, in (0, 1]; the shares of a vote add up to 1


def vote(hits: Sequence[Hit]) -> list[Vote]:
    """Return the labels of ``hits`` with their shares of the votes, the largest first.

    A hit votes for its label with the weight exp(score / 0.07). Among unit vectors the k nearest
    often have cosines close together, between which weights in proportion to the cosine would
    hardly tell; under these, 0.07 nearer counts 2.7 times, so the nearest decide and a long tail
    of far ones does not outvote them. From Wu, Xiong, Yu and Lin, "Unsupervised feature learning
    via non-parametric instance discrimination", CVPR 2018, section 3.4, with their temperature.

    Labels with equal shares come in the order of their nearest hits. Hits without a label do not
    vote, so without any label there is no vote.

    Args:
        hits: best first.
    """
    labelled = [(hit.label, hit.score) for hit in hits if hit.label is not None]
    if not labelled:
        return []
    best = max(score for _, score in labelled)  # taken off, which changes no share, for range
    weights: dict[str, list[float]] = {}  # in the order of each label's nearest hit
    for label, score in labelled:
        weights.setdefault(label, []).append(math.exp((score - best) / TEMPERATURE))
    # fsum rounds once, so equal scores in another order make equal sums, and ties are seen.
    total = math.fsum(weight for each in weights.values() for weight in each)
    votes = [Vote(label, math.fsum(each) / total) for label, each in weights.items()]
    return sorted(votes, key=lambda one: -one.share)  # stable: ties stay in order
