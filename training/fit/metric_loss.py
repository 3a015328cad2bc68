"""Losses on unit vectors, beside cross-entropy: vectors and labels in, one number out.

Both are made of a few kernels on whole matrices, and none of them waits for the device: a library's
are of some fifty, and count pairs on the way.

Shape suffixes: B images, D vector width, L labels.
"""

from typing import Final

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from training.recipes.recipe import Recipe

CONTRAST_TEMPERATURE: Final = 0.1  # Khosla et al. 2020 (arXiv:2004.11362), section 4
# Wang et al. 2018 (arXiv:1801.09414) have 0.35 and 64.
COSINE_MARGIN: Final = 0.1
COSINE_SCALE: Final = 16.0


class SupervisedContrastive(nn.Module):
    """Vectors of a class attract one another, all others repel (Khosla et al. 2020, equation 2)."""

    def forward(self, vectors_BD: Tensor, labels_B: Tensor) -> Tensor:
        """Return the mean over the images that have another of their class in the batch.

        It is 0 where there is no such image, or no image of another class.
        """
        same_BB = labels_B[:, None] == labels_B
        itself_BB = torch.eye(len(labels_B), dtype=torch.bool, device=labels_B.device)
        pairs_BB = same_BB & ~itself_BB
        scores_BB = vectors_BD @ vectors_BD.T / CONTRAST_TEMPERATURE
        scores_BB = scores_BB.masked_fill(itself_BB, -torch.inf)
        log_shares_BB = scores_BB.log_softmax(dim=1).masked_fill(~pairs_BB, 0.0)
        counts_B = pairs_BB.sum(dim=1)
        losses_B = -log_shares_BB.sum(dim=1) / counts_B.clamp(min=1)
        loss = losses_B.sum() / (counts_B > 0).sum().clamp(min=1)
        return loss * (~same_BB).any()


class CosFace(nn.Module):
    """A direction for each class, with a margin between them (Wang et al. 2018, equation 4)."""

    def __init__(self, num_labels: int, width: int) -> None:
        super().__init__()
        self.W = nn.Parameter(torch.empty(width, num_labels))
        nn.init.normal_(self.W)

    def forward(self, vectors_BD: Tensor, labels_B: Tensor) -> Tensor:
        """Return the mean over the images."""
        cosines_BL = vectors_BD @ normalize(self.W, dim=0)
        own_BL = labels_B[:, None] == torch.arange(self.W.shape[1], device=labels_B.device)
        return cross_entropy(COSINE_SCALE * (cosines_BL - COSINE_MARGIN * own_BL), labels_B)


def build_metric_loss(recipe: Recipe, num_labels: int) -> nn.Module | None:
    """Return the loss on unit vectors (B, D) and labels (B,) that the recipe names."""
    match recipe.metric_loss:
        case "none":
            return None
        case "supervised-contrastive":
            return SupervisedContrastive()
        case "cosface":
            return CosFace(num_labels, recipe.width)
