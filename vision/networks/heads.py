"""What stands on a network's features: two-part vectors, and classifiers.

Shape suffixes: B images, F features, D vector width, L labels.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from vision.model.manifest import Architecture


class ItemAndKind(nn.Module):
    """Features (B, F) to two unit vectors side by side (B, D), each with the root of its share.

    The first tells one thing from another, the second tells kinds apart; the cosine of two results
    is the mean of both cosines, weighted by the shares.
    """

    def __init__(self, features: int, architecture: Architecture) -> None:
        super().__init__()
        width, item_width, share = (
            architecture.width,
            architecture.item_width,
            architecture.kind_share,
        )
        assert item_width is not None  # both are checked by the architecture
        assert share is not None
        self.item = nn.Linear(features, item_width)  # the biases take the mean away
        self.kind = nn.Linear(features, width - item_width)
        self._lengths = (math.sqrt(1 - share), math.sqrt(share))

    def forward(self, features_BF: Tensor) -> Tensor:
        """Return both parts (B, D) of features (B, F)."""
        rows = (self.item(features_BF), self.kind(features_BF))
        return torch.cat(
            [
                length * normalize(row, dim=1)
                for length, row in zip(self._lengths, rows, strict=True)
            ],
            dim=1,
        )


class EmptyClassifier(nn.Module):
    """In place of a classifier where there are no classes: (B, D) to (B, 0)."""

    def forward(self, embedded_BD: Tensor) -> Tensor:
        """Return no scores (B, 0) of whatever is there (B, D)."""
        return embedded_BD[:, :0]


def make_classifier(features: int, num_labels: int) -> nn.Module:
    """Return a linear layer; without classes, one that gives no scores."""
    return nn.Linear(features, num_labels) if num_labels else EmptyClassifier()
