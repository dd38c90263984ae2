"""What a picture needs of a fitted estimator: the autoencoder, the steps before it, and PCA's reconstructions."""

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
    """The autoencoder that an estimator is or ends with.

    Raises
    ------
    TypeError
        If it is neither an AutoEncoderTransformer nor a Pipeline that ends with one.
    """
    last = estimator.steps[-1][1] if isinstance(estimator, Pipeline) else estimator
    if not isinstance(last, AutoEncoderTransformer):
        raise TypeError(
            f"estimator must be an AutoEncoderTransformer or a Pipeline that ends with one, got {estimator!r}. Of a "
            "search pass best_estimator_, of a detector estimator_."
        )
    return last


@dataclass(frozen=True)
class Fitted:
    """A fitted autoencoder and the steps before it, if there are any."""

    autoencoder: AutoEncoderTransformer
    before: Pipeline | None

    def inputs(self, X: Any) -> Any:
        """What the autoencoder is handed where the estimator is handed X."""
        return X if self.before is None else self.before.transform(X)

    def undoes(self, X: Any) -> bool:
        """Whether the steps before can be undone, to numbers that can be drawn."""
        if self.before is None:
            return True
        dtype = X.dtype if scipy.sparse.issparse(X) else np.asarray(X).dtype
        return hasattr(self.before, "inverse_transform") and dtype.kind in "biuf"

    def undone(self, rows: NDArray) -> NDArray:
        """Samples of the autoencoder as rows of X."""
        return rows if self.before is None else dense(self.before.inverse_transform(rows))

    def codes(self, X: Any) -> NDArray:
        """The codes of X, whatever container the estimator is set to."""
        return np.asarray(self.autoencoder.transform(self.inputs(X)))

    def feature_names(self) -> NDArray | None:
        """Names of what the autoencoder is handed, where they are known."""
        names = getattr(self.autoencoder, "feature_names_in_", None)
        if names is None and self.before is not None and hasattr(self.before, "get_feature_names_out"):
            names = self.before.get_feature_names_out()
        return names


def fitted_parts(estimator: Any) -> Fitted:
    """Take a fitted estimator apart.

    Raises
    ------
    TypeError
        If there is no autoencoder in it.
    NotFittedError
        If it is not fitted.
    """
    autoencoder = autoencoder_of(estimator)
    check_is_fitted(autoencoder)
    several = isinstance(estimator, Pipeline) and len(estimator.steps) > 1
    return Fitted(autoencoder, estimator[:-1] if several else None)


def dense(rows: Any) -> NDArray:
    """Samples of whatever container as a dense array of floats."""
    array = np.asarray(rows.toarray() if scipy.sparse.issparse(rows) else rows)
    return array if array.dtype.kind == "f" else array.astype(float)


def first_samples(X: Any, n_samples: int) -> Any:
    """The first rows of X, in its container."""
    return _safe_indexing(X, np.arange(min(n_samples, _num_samples(X))))


def reconstructed(autoencoder: AutoEncoderTransformer, X: Any) -> NDArray:
    """What comes back of rows, whatever container the estimator is set to."""
    return np.asarray(autoencoder.inverse_transform(np.asarray(autoencoder.transform(X))))


def pca_baseline(autoencoder: AutoEncoderTransformer, n_components: int | None = None) -> AutoEncoderTransformer:
    """PCA by the same rules, for sparse and incomplete rows too, with as many codes unless told otherwise."""
    wanted = autoencoder.n_components if n_components is None else n_components
    return AutoEncoderTransformer(wanted, activation="identity", max_epochs=0, allow_nan=autoencoder.allow_nan)


def has_pca(autoencoder: AutoEncoderTransformer) -> bool:
    """Whether the network keeps the PCA that it started at."""
    return autoencoder.net_.module_.architecture.linear_skip


def pca_rows(autoencoder: AutoEncoderTransformer, X: Any) -> NDArray:
    """Reconstructions of X by the PCA that the network started at and keeps."""
    module, X = autoencoder.net_.module_, to_numpy(validated_samples(autoencoder, X, "transform"))
    return apply_in_batches(lambda x: _pca_pass(module, x), X, X.shape[1], module.mean, X.dtype)


def pca_score(autoencoder: AutoEncoderTransformer, X: Any) -> float:
    """What `score` would be of that PCA."""
    module, X = autoencoder.net_.module_, to_numpy(validated_samples(autoencoder, X, "transform"))

    def squares(x):
        differences = torch.stack([_pca_pass(module, x) - x, x - module.training_mean])
        return differences.masked_fill_(x.isnan(), 0.0).cpu().double().square().sum(dim=2).T

    errors, offsets = apply_in_batches(squares, X, 2, module.mean, np.float64).sum(axis=0)
    return float(1.0 - errors / offsets) if offsets > 0 else float(errors == 0)


@torch.no_grad()
def _pca_pass(module, x):
    """Samples through the principal directions and back."""
    codes = module.standardized(x) @ module.network.pca_encoding.T
    return torch.addcmul(module.mean, codes @ module.network.pca_decoding, module.scale)
