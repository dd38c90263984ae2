"""Plot of the contributions of the features to the codes of samples."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from skae._data.array_api import to_numpy
from skae._display import canvas, fitted
from skae._display.features import FeatureGrid
from skae._inspection import attributions

# Number of codes that are drawn by default. Chosen by reasoning.
N_CODES = 4


@dataclass(kw_only=True, eq=False, repr=False)
class AttributionDisplay(FeatureGrid):
    """Contributions of the features to the codes of some samples.

    The contribution of a feature to a code is the derivative of the code times the deviation of the feature from the
    mean; see `attributions`. Contributions are drawn as bars, the largest first, or as images.

    It is recommended to create a display with `from_estimator`. All parameters are stored as attributes.

    Parameters
    ----------
    attributions : ndarray of shape (n_samples, n_components, n_features)
        Contributions of the features to each code of each sample.
    components : sequence of int, default=None
        Indices of the codes. None numbers them from 0.
    feature_names : sequence of str, default=None
        Names of the features. None numbers them.
    image_shape : tuple of int or None, default=None
        Shape (height, width) or (3, height, width) of the images that the samples represent. None draws bars.

    Attributes
    ----------
    artists_ : ndarray of shape (n_samples, n_components)
        The bars, as matplotlib BarContainer, or images, as matplotlib AxesImage, of each code of each sample.
    colorbar_ : matplotlib Colorbar or None
        The colorbar of images.
    axes_ : ndarray of shape (n_samples, n_components)
        The axes, with a row for each sample and a column for each code.
    figure_ : matplotlib Figure
        The figure that contains the axes.

    See Also
    --------
    attributions : The contributions as an array.
    LatentLoadingsDisplay : Effects of features on codes, averaged over samples.
    ReconstructionErrorDisplay : Errors of the features of outliers.

    Notes
    -----
    For images with three channels, the sum over the channels is drawn.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from skae import AttributionDisplay, AutoEncoderTransformer
    >>> X = load_diabetes(as_frame=True).data
    >>> autoencoder = AutoEncoderTransformer(2, max_epochs=5, random_state=0).fit(X)
    >>> display = AttributionDisplay.from_estimator(autoencoder, X, n_samples=1)
    >>> display.axes_[0, 0].get_yticklabels()[0].get_text()
    'bmi'
    """

    attributions: NDArray
    components: Sequence[int] | None = None
    feature_names: Any = None
    image_shape: Any = None

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        *,
        components: Sequence[int] | None = None,
        n_samples: int = 3,
        n_features: int = 8,
        image_shape: Any = "auto",
        feature_names: Any = None,
        ax: Any = None,
        cmap: Any = None,
    ) -> "AttributionDisplay":
        """Compute the contributions for the first samples of X, and draw them.

        Parameters
        ----------
        estimator : AutoEncoderTransformer or Pipeline
            Fitted autoencoder, or fitted pipeline whose last step is an autoencoder. Features are those of the input of
            the autoencoder.
        X : {array-like, sparse matrix or array} of shape (n_samples, n_features)
            Samples in the units of the training samples.
        components : sequence of int, default=None
            Indices of the codes to draw. None draws the first four.
        n_samples : int, default=3
            Number of samples to draw.
        n_features : int, default=8
            Maximum number of bars for each code: the features with the largest contributions, by absolute value.
        image_shape : "auto", tuple of int or None, default="auto"
            Shape of the images that the samples represent: (height, width) or (channels, height, width) with 1 or 3
            channels. None draws bars. "auto" uses the ``input_shape`` of the autoencoder.
        feature_names : sequence of str, default=None
            Names of the features. None uses the feature names of the autoencoder or of the step before it, if they have
            any.
        ax : matplotlib Axes or array of Axes, default=None
            Axes to draw on: as many as are needed, or a single one that is divided. None creates a new figure.
        cmap : str or matplotlib Colormap, default=None
            Colormap of images. None uses "RdBu_r".

        Returns
        -------
        AttributionDisplay
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
        _, autoencoder = fitted.parts(estimator)
        canvas.check_count("n_samples", n_samples)
        n_codes, n_inputs = autoencoder.n_components_, autoencoder.n_features_in_
        selected = canvas.selected_codes(range(min(n_codes, N_CODES)) if components is None else components, n_codes)
        names = fitted.feature_names(estimator, feature_names, n_inputs)
        sides = canvas.resolved_image_shape(image_shape, autoencoder.input_shape, n_inputs)
        values = to_numpy(attributions(estimator, fitted.first_samples(X, n_samples)))
        display = cls(attributions=values[:, selected], components=selected, feature_names=names, image_shape=sides)
        return display.plot(ax=ax, n_features=n_features, cmap=cmap)

    def _content(self) -> tuple[NDArray, str, list[str], bool]:
        codes = self.components or range(self.attributions.shape[1])
        return self.attributions, "contribution", [f"code {code}" for code in codes], True
