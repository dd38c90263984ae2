"""Plot of the effects of features on codes, and of codes on features."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.utils import _safe_indexing
from sklearn.utils.validation import _num_samples

from skae._data.validation import validated_samples
from skae._display import canvas, fitted
from skae._inspection import codes_of, decoder_loadings
from skae._network.projection import average_jacobian, encoder_jacobians
from skae._utils import aligned_tensor

# Labels of the colorbars.
MEANINGS = {"encoder": "change of code", "decoder": "change of feature"}
# A diverging colormap for signed effects, and a sequential one for magnitudes.
COLORMAPS = {"mean": "RdBu_r", "rms": "viridis"}
# Features and codes are named at the axis if there are at most this many. Chosen by reasoning.
MAX_NAMES = 40
# Height and width of a cell in inches.
CELL_HEIGHT, CELL_WIDTH = 0.22, 0.45


@dataclass(kw_only=True, eq=False, repr=False)
class LatentLoadingsDisplay:
    """Effects of features on codes (encoder), and of codes on the reconstruction (decoder).

    The effects are derivatives of the codes with respect to the features, and of the reconstruction with respect to the
    codes. They are averaged over samples. Those of the codes are derivatives of the encoder alone: the projection that
    follows in ``transform`` is left out.

    It is recommended to create a display with `from_estimator`. All parameters are stored as attributes.

    Parameters
    ----------
    encoder : ndarray of shape (n_features, n_components)
        Change of each code per step in each feature.
    decoder : ndarray of shape (n_features, n_components)
        Change of the reconstruction of each feature per step in each code.
    average : {"mean", "rms"}, default="mean"
        How the effects were averaged over samples.
    components : sequence of int, default=None
        Indices of the codes. None numbers them from 0.
    feature_names : sequence of str, default=None
        Names of the features. None numbers them.
    image_shape : tuple of int or None, default=None
        Shape (height, width) or (3, height, width) of the images that the samples represent. None draws heat maps.

    Attributes
    ----------
    artists_ : dict of str to list of matplotlib AxesImage
        The heat map, or the images of all codes, of "encoder" and "decoder".
    colorbars_ : list of matplotlib Colorbar
        The colorbars of encoder and decoder.
    axes_ : ndarray of matplotlib Axes
        The axes, of shape (1, 2) for heat maps and (2, n_components) for images.
    figure_ : matplotlib Figure
        The figure that contains the axes.

    See Also
    --------
    loadings : Average effects of the codes as a table.
    AttributionDisplay : Contributions of the features to the codes of single samples.
    LatentDisplay : Codes of the samples.
    sklearn.inspection.PartialDependenceDisplay : Effect of one feature on a prediction.

    Notes
    -----
    The mean shows the signs of the effects, but effects with different signs for different samples cancel. With two or
    three codes of nonlinear data, more than half of the effects may cancel. The root mean square, "rms", shows the
    magnitude of the effects but not their signs. If the mean is much smaller than the root mean square, the effect of
    the feature depends on other features.

    With ``step="unit"``, both encoder and decoder of a linear autoencoder are the ``components_`` of PCA. However,
    features with little variation may appear to have large effects, and features with different units cannot be
    compared. With ``step="spread"``, steps are one standard deviation over the samples. Effects on features are in the
    units of the features.

    For images with three channels, the mean over the channels is drawn.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from skae import AutoEncoderTransformer, LatentLoadingsDisplay
    >>> X = load_diabetes(as_frame=True).data
    >>> autoencoder = AutoEncoderTransformer(3, max_epochs=5, random_state=0).fit(X)
    >>> display = LatentLoadingsDisplay.from_estimator(autoencoder, X)
    >>> display.encoder.shape, display.axes_[0, 0].get_yticklabels()[2].get_text()
    ((10, 3), 'bmi')
    """

    encoder: NDArray
    decoder: NDArray
    average: str = "mean"
    components: Sequence[int] | None = None
    feature_names: Any = None
    image_shape: Any = None

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        *,
        average: str = "mean",
        step: str = "spread",
        components: Sequence[int] | None = None,
        image_shape: Any = "auto",
        feature_names: Any = None,
        n_samples: int = 256,
        ax: Any = None,
        cmap: Any = None,
    ) -> "LatentLoadingsDisplay":
        """Average the derivatives over samples of X, and draw them.

        Parameters
        ----------
        estimator : AutoEncoderTransformer or Pipeline
            Fitted autoencoder, or fitted pipeline whose last step is an autoencoder. Features are those of the input of
            the autoencoder.
        X : {array-like, sparse matrix or array} of shape (n_samples, n_features)
            Samples in the units of the training samples.
        average : {"mean", "rms"}, default="mean"
            How the effects are averaged over samples. "mean" keeps the signs, so that effects may cancel. "rms" is the
            root mean square, which has no sign.
        step : {"spread", "unit"}, default="spread"
            Size of the steps whose effects are drawn: one standard deviation over the samples, or one unit.
        components : sequence of int, default=None
            Indices of the codes to draw. None draws all.
        image_shape : "auto", tuple of int or None, default="auto"
            Shape of the images that the samples represent: (height, width) or (channels, height, width) with 1 or 3
            channels. None draws heat maps. "auto" uses the ``input_shape`` of the autoencoder.
        feature_names : sequence of str, default=None
            Names of the features. None uses the feature names of the autoencoder or of the step before it, if they have
            any.
        n_samples : int, default=256
            Maximum number of samples to average over. They are evenly spaced in X.
        ax : matplotlib Axes or array of Axes, default=None
            Axes to draw on: as many as are needed, or a single one that is divided. None creates a new figure.
        cmap : str or matplotlib Colormap, default=None
            Colormap. None uses "RdBu_r" for the mean and "viridis" for "rms".

        Returns
        -------
        LatentLoadingsDisplay
            The display, which stores the data of the plot.

        Raises
        ------
        ValueError
            If a parameter is invalid, or X does not have the features of the estimator.
        TypeError
            If ``estimator`` is neither an AutoEncoderTransformer nor a Pipeline that ends with one.
        ImportError
            If matplotlib is not installed.
        """
        canvas.pyplot(f"{cls.__name__}.from_estimator")
        before, autoencoder = fitted.parts(estimator)
        n_codes, n_features = autoencoder.n_components_, autoencoder.n_features_in_
        if average not in COLORMAPS:
            raise ValueError(f"average={average!r} must be 'mean' or 'rms'.")
        if step not in ("spread", "unit"):
            raise ValueError(f"step={step!r} must be 'spread' or 'unit'.")
        canvas.check_count("n_samples", n_samples)
        codes = canvas.selected_codes(range(n_codes) if components is None else components, n_codes)
        names = fitted.feature_names(estimator, feature_names, n_features)
        indices = np.unique(np.linspace(0, _num_samples(X) - 1, n_samples).round().astype(int))
        samples = before.transform(_safe_indexing(X, indices))
        encoder, decoder = _loadings(autoencoder, samples, average == "mean", step)[:, :, codes]
        sides = canvas.resolved_image_shape(image_shape, autoencoder.input_shape, n_features)
        return cls(
            encoder=encoder, decoder=decoder, average=average, components=codes, feature_names=names, image_shape=sides
        ).plot(ax=ax, cmap=cmap)

    def plot(self, ax: Any = None, *, cmap: Any = None) -> "LatentLoadingsDisplay":
        """Draw the plot.

        Parameters
        ----------
        ax : matplotlib Axes or array of Axes, default=None
            Axes to draw on: as many as are needed, or a single one that is divided. None creates a new figure.
        cmap : str or matplotlib Colormap, default=None
            Colormap. None uses "RdBu_r" for the mean and "viridis" for "rms".

        Returns
        -------
        LatentLoadingsDisplay
            The display.

        Raises
        ------
        ValueError
            If ``ax`` is invalid.
        ImportError
            If matplotlib is not installed.
        """
        n_features, n_codes = self.encoder.shape
        if self.image_shape is None:
            n_rows = min(n_features, MAX_NAMES)
            size = min(2 * (CELL_WIDTH * n_codes + 1.4) + 1.0, canvas.MAX_WIDTH), CELL_HEIGHT * n_rows + 1.2
            self.axes_ = canvas.axes_grid(self, ax, (1, 2), size)
        else:
            size = min(canvas.IMAGE_SIDE * n_codes + 1.8, canvas.MAX_WIDTH), 2 * canvas.IMAGE_SIDE + 0.6
            self.axes_ = canvas.axes_grid(self, ax, (2, n_codes), size, images=True)
        self.figure_ = self.axes_[0, 0].figure
        self.artists_: dict[str, list] = {}
        self.colorbars_: list = []
        draw = self._draw_heat_map if self.image_shape is None else self._draw_images
        for name, axes in zip(MEANINGS, self.axes_.reshape(2, -1), strict=True):
            draw(name, axes, COLORMAPS[self.average] if cmap is None else cmap)
        return self

    def _draw_heat_map(self, name: str, axes: NDArray, cmap: Any) -> None:
        """Draw the effects of all codes and features in a single axes."""
        (ax,), values = axes, getattr(self, name)
        low, high = self._limits(values)
        image = ax.imshow(values, cmap=cmap, aspect="auto", interpolation="nearest", vmin=low, vmax=high)
        self.artists_[name] = [image]
        self.colorbars_.append(ax.figure.colorbar(image, ax=ax, aspect=30, label=MEANINGS[name]))
        ax.set_title(name, fontsize="medium")
        n_features, n_codes = values.shape
        if n_codes <= MAX_NAMES:
            ax.set_xticks(range(n_codes), self._code_names(), rotation=90)
        if name == "decoder":
            ax.tick_params(labelleft=False)
        elif n_features <= MAX_NAMES:
            names = range(n_features) if self.feature_names is None else self.feature_names
            ax.set_yticks(range(n_features), [str(feature) for feature in names])
        if name == "encoder" and self.feature_names is None:
            ax.set_ylabel("feature")

    def _draw_images(self, name: str, axes: NDArray, cmap: Any) -> None:
        """Draw the effects of each code as an image."""
        images = canvas.as_images(getattr(self, name).T, self.image_shape)
        images = images.mean(axis=-1) if images.ndim == 4 else images
        limits = self._limits(images)
        artists = [canvas.show_image(ax, image, limits, cmap) for ax, image in zip(axes, images, strict=True)]
        self.artists_[name] = artists
        canvas.label_row(axes[0], name)
        self.colorbars_.append(self.figure_.colorbar(artists[0], ax=list(axes), label=MEANINGS[name]))
        if name == "encoder":
            for ax, title in zip(axes, self._code_names(), strict=True):
                ax.set_title(title, fontsize="medium")

    def _code_names(self) -> list[str]:
        """Return the names of the codes."""
        return [f"code {code}" for code in (self.components or range(self.encoder.shape[1]))]

    def _limits(self, values: NDArray) -> tuple[float, float]:
        """Return the limits of the colormap: symmetric around zero for the mean, from zero for the root mean square."""
        largest = float(np.abs(values).max()) or 1.0
        return -largest if self.average == "mean" else 0.0, largest


def _loadings(autoencoder: Any, X: Any, signed: bool, step: str) -> NDArray:
    """Return the average effects of encoder and decoder, of shape (2, n_features, n_components)."""
    module, samples = autoencoder.net_.module_.in_double(), validated_samples(autoencoder, X, "transform")
    with torch.no_grad():
        x = module.standardized(aligned_tensor(samples[:]).to(module.mean))
        codes = codes_of(autoencoder, samples)
        if step == "spread" and len(x) < 2:
            raise ValueError("step='spread' needs at least 2 samples, but X has 1. Pass more samples, or step='unit'.")
        encoder = average_jacobian(encoder_jacobians, module.network.encode, x, codes.shape[1], signed)
        encoder, decoder = encoder * module.code_unit / module.scale, decoder_loadings(autoencoder, codes, signed)
        if step == "spread":
            encoder *= module.scale * x.std(dim=0, correction=0)[:, None]
            decoder *= codes.std(dim=0, correction=0)
        return np.stack([encoder.cpu().numpy(), decoder.cpu().numpy()])
