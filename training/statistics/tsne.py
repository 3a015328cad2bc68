"""Vectors in, places on a plane out: near vectors come to lie near each other.

Shape suffixes: N vectors, D vector width.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

FEWEST: Final = 10  # vectors that t-SNE can make something of
START: Final = 1e-4  # standard deviation of the first layout, as in scikit-learn
PERPLEXITY: Final = 30.0  # neighbours that each vector is to stay near to (the paper: 5 to 50)


def project_vectors(vectors_ND: NDArray[np.float32], *, seed: int = 0) -> NDArray[np.float32]:
    """Return places (N, 2) in no unit, by t-SNE (van der Maaten & Hinton 2008) of cosines.

    About eight seconds for 2,000 vectors, on one thread; the same ones get the same places. Fewer
    than ten are laid out by their principal components. Neighbourhoods are kept; distances between
    groups and their sizes mean nothing.
    """
    flat_N2 = _principal_components(vectors_ND)
    spread = flat_N2[:, 0].std()
    if len(vectors_ND) < FEWEST or spread == 0:  # spread 0: all vectors are the same
        return flat_N2
    from sklearn.manifold import TSNE  # noqa: PLC0415 - takes seconds
    from threadpoolctl import threadpool_limits  # noqa: PLC0415

    method = TSNE(
        metric="cosine",
        init=flat_N2 * (START / spread),
        perplexity=min(PERPLEXITY, (len(vectors_ND) - 1) / 3),
        random_state=seed,
    )
    with threadpool_limits(1):  # more wait for one another: slower where cores have other work
        places_N2: NDArray[np.float32] = method.fit_transform(vectors_ND).astype(np.float32)
    return places_N2


def _principal_components(vectors_ND: NDArray[np.float32]) -> NDArray[np.float32]:
    centred_ND = vectors_ND - vectors_ND.mean(axis=0)
    _, _, axes_DD = np.linalg.svd(centred_ND, full_matrices=False)
    places_N2 = np.zeros((len(vectors_ND), 2), np.float32)
    kept = min(2, len(axes_DD))
    places_N2[:, :kept] = centred_ND @ axes_DD[:kept].T
    return places_N2
