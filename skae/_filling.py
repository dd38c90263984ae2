"""Values that are missing, filled in from the principal directions and the values that are there."""

import numpy as np
import torch
from torch import Tensor, nn

from skae._layers import Directions

# What the directions leave counts as at least this share of the variance, in parts of the share that is missing: rows
# with half of their values show too little of it.
LEAST_NOISE = 0.6


class Filling(nn.Module):
    """Replaces NaN in centred rows of unit scale by what probabilistic PCA expects, given the values that are there.

    A row without any value becomes the mean.

    Parameters
    ----------
    n_components, n_features : int
        Numbers of directions and of columns.
    dtype : torch.dtype
        Of the rows.

    References
    ----------
    .. [1] M. E. Tipping, C. M. Bishop, "Probabilistic principal component analysis", Journal of the Royal Statistical
       Society B 61 (1999) 611-622. :doi:`10.1111/1467-9868.00196`
    """

    components: Tensor
    ridge: Tensor

    def __init__(self, n_components: int, n_features: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.register_buffer("components", torch.zeros((n_components, n_features), dtype=dtype))
        self.register_buffer("ridge", torch.ones(n_components, dtype=dtype))

    @torch.no_grad()
    def start_at(self, directions: Directions) -> None:
        """Take over the directions, and how far each is to be trusted."""
        n_components, n_features = self.components.shape
        variances = directions.explained_variance / directions.scale**2
        left = np.square(directions.column_scale / directions.scale).sum() - variances.sum()
        # Filled-in values have no noise of their own.
        noise = left / max(n_features - n_components, 1) / directions.share_present
        noise = max(noise, LEAST_NOISE * (1.0 - directions.share_present), np.finfo(np.float32).eps)
        self.components.copy_(torch.as_tensor(directions.components))
        self.ridge.copy_(torch.as_tensor(noise / np.maximum(variances, np.finfo(np.float32).tiny)))

    def forward(self, x: Tensor) -> Tensor:
        """Return the rows without NaN."""
        missing = x.isnan()
        if not missing.any():
            return x
        chosen = missing.any(dim=1).nonzero()[:, 0]
        there, rows = (~missing[chosen]).to(x.dtype), x[chosen].nan_to_num(0.0)
        n_components = len(self.components)
        pairs = (self.components[:, None] * self.components).reshape(n_components**2, -1)
        products = (there @ pairs.T).reshape(-1, n_components, n_components) + self.ridge.diag()
        codes = torch.linalg.solve(products, rows @ self.components.T)
        return x.index_copy(0, chosen, torch.where(missing[chosen], codes @ self.components, rows))
