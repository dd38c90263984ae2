"""Access to the autoencoder of a fitted estimator, the steps before it, and the reconstructions by PCA."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse
import torch
from numpy.typing import NDArray
from sklearn.pipeline import Pipeline
from sklearn.utils import _safe_indexing
from sklearn.utils.validation import _num_samples, check_is_fitted

from skae._autoencoder import AutoEncoderTransformer
from skae._data.array_api import to_numpy
from skae._data.dataset import apply_in_batches
from skae._data.validation import validated_samples


def autoencoder_of(estimator: Any) -> AutoEncoderTransformer:
    """Return the autoencoder, which is the estimator itself or the last step of a pipeline.

    Raises
    ------
    TypeError
        If the estimator is neither an AutoEncoderTransformer nor a Pipeline that ends with one.
    """
    last = estimator.steps[-1][1] if isinstance(estimator, Pipeline) else estimator
    if not isinstance(last, AutoEncoderTransformer):
        raise TypeError(
            f"estimator must be an AutoEncoderTransformer or a Pipeline that ends with one, got {estimator!r}. Pass "
            "best_estimator_ of a search, or estimator_ of an outlier detector."
        )
    return last


@dataclass(frozen=True)
class Fitted:
    """Fitted autoencoder and the steps before it in a pipeline.

    Attributes
    ----------
    autoencoder : AutoEncoderTransformer
        The autoencoder.
    before : Pipeline or None
        The steps before the autoencoder. None if there are none.
    """

    autoencoder: AutoEncoderTransformer
    before: Pipeline | None

    def inputs(self, X: Any) -> Any:
        """Return the input of the autoencoder, which is X transformed by the steps before it."""
        return X if self.before is None else self.before.transform(X)

    def is_invertible(self, X: Any) -> bool:
        """Return whether the steps before the autoencoder can be inverted, and X is numeric so that it can be drawn."""
        if self.before is None:
            return True
        dtype = X.dtype if scipy.sparse.issparse(X) else np.asarray(X).dtype
        return hasattr(self.before, "inverse_transform") and dtype.kind in "biuf"

    def inverted(self, samples: NDArray) -> NDArray:
        """Apply the inverse of the steps before the autoencoder."""
        return samples if self.before is None else dense(self.before.inverse_transform(samples))

    def codes(self, X: Any) -> NDArray:
        """Return the codes of X as an array, for any output container of the estimator."""
        return np.asarray(self.autoencoder.transform(self.inputs(X)))

    def feature_names(self) -> NDArray | None:
        """Return the names of the input features of the autoencoder, or None if they are not known."""
        names = getattr(self.autoencoder, "feature_names_in_", None)
        if names is None and self.before is not None and hasattr(self.before, "get_feature_names_out"):
            names = self.before.get_feature_names_out()
        return names


def fitted_parts(estimator: Any) -> Fitted:
    """Split a fitted estimator into the autoencoder and the steps before it.

    Raises
    ------
    TypeError
        If ``estimator`` is neither an AutoEncoderTransformer nor a Pipeline that ends with one.
    NotFittedError
        If the autoencoder is not fitted.
    """
    autoencoder = autoencoder_of(estimator)
    check_is_fitted(autoencoder)
    several = isinstance(estimator, Pipeline) and len(estimator.steps) > 1
    return Fitted(autoencoder, estimator[:-1] if several else None)


def dense(samples: Any) -> NDArray:
    """Convert samples in any container to a dense floating-point array."""
    array = np.asarray(samples.toarray() if scipy.sparse.issparse(samples) else samples)
    return array if array.dtype.kind == "f" else array.astype(float)


def first_samples(X: Any, n_samples: int) -> Any:
    """Return the first samples of X, in the container of X."""
    return _safe_indexing(X, np.arange(min(n_samples, _num_samples(X))))


def reconstructed(autoencoder: AutoEncoderTransformer, X: Any) -> NDArray:
    """Return the reconstruction of X as an array, for any output container of the estimator."""
    return np.asarray(autoencoder.inverse_transform(np.asarray(autoencoder.transform(X))))


def pca_baseline(autoencoder: AutoEncoderTransformer, n_components: int | None = None) -> AutoEncoderTransformer:
    """Create an estimator that computes PCA and accepts the same input as the autoencoder.

    It has the ``n_components`` of the autoencoder unless another number is given.
    """
    n_components = autoencoder.n_components if n_components is None else n_components
    return AutoEncoderTransformer(n_components, activation="identity", max_epochs=0, allow_nan=autoencoder.allow_nan)


def has_pca(autoencoder: AutoEncoderTransformer) -> bool:
    """Return whether the network contains the PCA from which it was initialized."""
    return autoencoder.net_.module_.architecture.linear_skip


def pca_reconstructed(autoencoder: AutoEncoderTransformer, X: Any) -> NDArray:
    """Return the reconstruction of X by the PCA from which the network was initialized."""
    module, X = autoencoder.net_.module_, to_numpy(validated_samples(autoencoder, X, "transform"))
    return apply_in_batches(lambda x: _pca_pass(module, x), X, X.shape[1], module.mean, X.dtype)


def pca_score(autoencoder: AutoEncoderTransformer, X: Any) -> float:
    """Compute the ``score`` of the PCA from which the network was initialized."""
    module, X = autoencoder.net_.module_, to_numpy(validated_samples(autoencoder, X, "transform"))

    def squares(x: torch.Tensor) -> torch.Tensor:
        differences = torch.stack([_pca_pass(module, x) - x, x - module.training_mean])
        return differences.masked_fill_(x.isnan(), 0.0).cpu().double().square().sum(dim=2).T

    errors, offsets = apply_in_batches(squares, X, 2, module.mean, np.float64).sum(axis=0)
    return float(1.0 - errors / offsets) if offsets > 0 else float(errors == 0)


@torch.no_grad()
def _pca_pass(module: Any, x: torch.Tensor) -> torch.Tensor:
    """Project samples onto the principal components and reconstruct them."""
    codes = module.standardized(x) @ module.network.pca_encoding.T
    return torch.addcmul(module.mean, codes @ module.network.pca_decoding, module.scale)
