"""Basis of leading principal components, in which networks for many features are trained."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from skae._data.containers import chunks_of
from skae._data.sample import Sample
from skae._data.validation import CHECKED_VALUES
from skae._network.layers import last_layer, trainable_state, weight_layers
from skae._network.scaling import ScaledAutoEncoder, build
from skae._pca.components import PrincipalComponents
from skae._utils import aligned_tensor, seeded_generator, torch_dtype

# Numbers of principal components of the basis, which is at least twice the bottleneck, and fraction of the variance
# that the smaller basis may leave unexplained. On isolet and MNIST training is as good as on all features in half of
# the time or less; COIL-20 loses .008 of the variance with 128 components, and nothing with 192.
BASIS_SIZES = 128, 192
MOST_OUTSIDE = 0.02
# The basis is used if the number of features is larger than that of the basis by this factor.
WIDE = 1.5


def basis_sizes(n_components: int) -> list[int]:
    """Return the numbers of principal components of the smaller and of the larger basis for a bottleneck."""
    return [max(size, 2 * n_components) for size in BASIS_SIZES]


@dataclass(frozen=True)
class PrincipalBasis:
    """Basis of leading principal components.

    Attributes
    ----------
    pca : PrincipalComponents
        The components of the basis.
    """

    pca: PrincipalComponents

    @classmethod
    def of(cls, pca: PrincipalComponents, n_components: int, count: float) -> "PrincipalBasis":
        """Return the smaller basis of these components, or all of them if it leaves too much variance unexplained."""
        least = pca.truncated(basis_sizes(n_components)[0])
        return cls(least if least.unexplained_variance_ratio(count) <= MOST_OUTSIDE else pca)

    @property
    def size(self) -> int:
        """Number of components."""
        return len(self.pca.components)

    def coordinates(self, sample: Sample) -> tuple[Sample, NDArray]:
        """Return the samples in the basis, and the squared distance of each sample from its span."""
        X, directions = np.empty((len(sample), self.size), dtype=sample.dtype), aligned_tensor(self.pca.components).T
        outside = np.empty(len(sample))
        for chunk in chunks_of(sample, CHECKED_VALUES):
            centered = sample[chunk].astype(np.float64) - self.pca.mean
            # By torch, whose number of threads a fit limits: the last bits of a product of NumPy depend on the machine.
            inside = (aligned_tensor(centered) @ directions).numpy()
            X[chunk] = inside
            outside[chunk] = np.maximum(np.square(centered).sum(axis=1) - np.square(inside).sum(axis=1), 0.0)
        return Sample(X, weights=sample.weights, groups=sample.groups, ranks=sample.ranks), outside

    def pca_of(self, sample: Sample, n_components: int) -> PrincipalComponents:
        """Return the principal components of samples in the basis, which are the unit vectors."""
        X, ranks = sample[:], sample.ranks
        if ranks.size > 1:
            squares = sample.mean(np.square(X, dtype=np.float64))
        else:  # a copy in double precision of one column at a time takes less memory
            squares = np.array([sample.mean(np.square(one, dtype=np.float64)) for one in X.T])
        largest = np.maximum(X.max(axis=0, initial=0.0), -X.min(axis=0, initial=0.0)).astype(np.float64)
        return replace(
            self.pca,
            mean=np.zeros(self.size),
            feature_std=np.sqrt(squares),
            feature_max_abs=ranks.max(largest),
            components=np.eye(n_components, self.size),
            explained_variance=self.pca.explained_variance[:n_components],
            code_max_abs=self.pca.code_max_abs[:n_components],
        )

    def network(self, model: ScaledAutoEncoder, pca: PrincipalComponents, seed: int) -> ScaledAutoEncoder:
        """Initialize a network in the basis with the architecture of one on all features."""
        architecture = replace(model.architecture, n_features=self.size, fills=False)
        small = build(architecture, torch_dtype(np.dtype(np.float64)))
        small.init_from_pca(pca, seeded_generator(seed))
        return small.to(model.mean.device).eval()

    @torch.no_grad()
    def expand(self, small: ScaledAutoEncoder, model: ScaledAutoEncoder) -> ScaledAutoEncoder:
        """Set the weights of a network on all features such that it computes the same as one in the basis.

        Parameters
        ----------
        small : ScaledAutoEncoder
            The network in the basis.
        model : ScaledAutoEncoder
            A network on all features, whose weights are overwritten.

        Returns
        -------
        ScaledAutoEncoder
            The network on all features.
        """
        inner: Any = small.network
        outer: Any = model.network
        dtype = torch.float64
        components = torch.as_tensor(self.pca.components, dtype=dtype, device=model.mean.device)
        gain_in, spread_in = inner.input_gain.to(dtype), inner.output_gain.to(dtype)
        gain, spread = outer.input_gain.to(dtype), outer.output_gain.to(dtype)
        ratio = model.scale.to(dtype) / small.scale.to(dtype)
        inputs = ratio * gain_in[:, None] * components * spread  # from all features to the basis
        outputs = gain[:, None] * components.T * spread_in / ratio  # from the basis to all features
        before: Any
        after: Any
        before, after = (weight_layers(one.encoder)[0] for one in (inner, outer))
        last_before, last_after = (last_layer(one.decoder) for one in (inner, outer))
        changed = {id(after.weight), id(last_after.weight), id(last_after.bias)}
        changed |= {id(outer.linear_encoder), id(outer.linear_decoder)}
        for value, kept in zip(trainable_state(outer), trainable_state(inner), strict=True):
            if id(value) not in changed:
                value.copy_(kept)

        after.weight.copy_(before.weight.to(dtype) @ inputs)
        outer.linear_encoder.copy_(inner.linear_encoder.to(dtype) @ inputs)
        last_after.weight.copy_(outputs @ last_before.weight.to(dtype))
        last_after.bias.copy_(outputs @ last_before.bias.to(dtype))
        outer.linear_decoder.copy_(inner.linear_decoder.to(dtype) @ outputs.T)
        # The projection is the same except for the unit of the loss.
        outer.code_limit.copy_(inner.code_limit)
        model.code_unit.copy_(small.code_unit)
        model.code_rms.copy_(small.code_rms)
        model.anchors.copy_(small.anchors)
        model.metric.copy_(small.metric * (ratio**2 * outer.architecture.n_features / self.size))
        model.projection = small.projection
        return model
