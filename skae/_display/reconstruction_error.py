"""Plot of the reconstruction errors of the features of outliers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import _safe_indexing

from skae._data.array_api import to_numpy
from skae._display import canvas, fitted
from skae._display.features import FeatureGrid
from skae._outliers import AutoEncoderOutlierDetector, scorer_and_inputs


@dataclass(kw_only=True, eq=False, repr=False)
class ReconstructionErrorDisplay(FeatureGrid):
    """Reconstruction errors of the features of outliers, which show why they are outliers.

    Errors are drawn as bars, the largest first, or as images.

    It is recommended to create a display with `from_estimator`. All parameters are stored as attributes.

    Parameters
    ----------
    errors : ndarray of shape (n_samples, n_features)
        Squared reconstruction error of each feature of each sample. Missing values are NaN.
    samples : sequence of int, default=None
        Indices of the samples. None numbers them from 0.
    feature_names : sequence of str, default=None
        Names of the features. None numbers them.
    image_shape : tuple of int or None, default=None
        Shape (height, width) or (3, height, width) of the images that the samples represent. None draws bars.

    Attributes
    ----------
    artists_ : ndarray of shape (1, n_samples)
        The bars, as matplotlib BarContainer, or image, as matplotlib AxesImage, of each sample.
    colorbar_ : matplotlib Colorbar or None
        The colorbar of images.
    axes_ : ndarray of shape (1, n_samples)
        The axes, one for each sample.
    figure_ : matplotlib Figure
        The figure that contains the axes.

    See Also
    --------
    AutoEncoderOutlierDetector.reconstruction_errors : The errors as an array.
    ReconstructionDisplay : Samples and their reconstructions.

    Notes
    -----
    For images with three channels, the sum over the channels is drawn.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from skae import AutoEncoderOutlierDetector, ReconstructionErrorDisplay
    >>> X = load_diabetes(as_frame=True).data
    >>> detector = AutoEncoderOutlierDetector(n_components=4, random_state=0).fit(X)
    >>> X.loc[7, "bp"] = 0.5
    >>> display = ReconstructionErrorDisplay.from_estimator(detector, X, n_samples=1)
    >>> display.samples, display.axes_[0, 0].get_yticklabels()[0].get_text()
    ([7], 'bp')
    """

    errors: NDArray
    samples: Sequence[int] | None = None
    feature_names: Any = None
    image_shape: Any = None

    @classmethod
    def from_estimator(
        cls,
        detector: Any,
        X: Any,
        *,
        n_samples: int = 4,
        n_features: int = 8,
        image_shape: Any = "auto",
        feature_names: Any = None,
        ax: Any = None,
        cmap: Any = None,
    ) -> "ReconstructionErrorDisplay":
        """Compute and draw the reconstruction errors of the samples with the lowest scores.

        Parameters
        ----------
        detector : AutoEncoderOutlierDetector
            Fitted outlier detector. Features are those of the input of its autoencoder.
        X : {array-like, sparse matrix or array} of shape (n_samples, n_features)
            Samples in the units of the training samples.
        n_samples : int, default=4
            Number of samples to draw: those with the lowest scores, the lowest first.
        n_features : int, default=8
            Maximum number of bars for each sample: the features with the largest errors.
        image_shape : "auto", tuple of int or None, default="auto"
            Shape of the images that the samples represent: (height, width) or (channels, height, width) with 1 or 3
            channels. None draws bars. "auto" uses the ``input_shape`` of the autoencoder.
        feature_names : sequence of str, default=None
            Names of the features. None uses the feature names of the autoencoder, of the step before it or of the
            detector, if they have any.
        ax : matplotlib Axes or array of Axes, default=None
            Axes to draw on: as many as are needed, or a single one that is divided. None creates a new figure.
        cmap : str or matplotlib Colormap, default=None
            Colormap of images. None uses "viridis".

        Returns
        -------
        ReconstructionErrorDisplay
            The display, which stores the data of the plot.

        Raises
        ------
        ValueError
            If a parameter is invalid, or X does not have the features of the detector.
        TypeError
            If ``detector`` is not an AutoEncoderOutlierDetector, or its estimator does not end with an autoencoder.
        ImportError
            If matplotlib is not installed.
        """
        canvas.pyplot(f"{cls.__name__}.from_estimator")
        if not isinstance(detector, AutoEncoderOutlierDetector):
            raise TypeError(f"detector must be an AutoEncoderOutlierDetector, got {detector!r}.")
        canvas.check_count("n_samples", n_samples)
        lowest = np.argsort(to_numpy(detector.score_samples(X)), kind="stable")[:n_samples]
        outliers = _safe_indexing(X, lowest)
        errors = to_numpy(detector.reconstruction_errors(outliers))
        autoencoder, inputs = scorer_and_inputs(detector.estimator_, outliers)
        named = detector if inputs is outliers else detector.estimator_
        names = fitted.feature_names(named, feature_names, errors.shape[1])
        sides = canvas.resolved_image_shape(image_shape, autoencoder.input_shape, errors.shape[1])
        display = cls(errors=errors, samples=lowest.tolist(), feature_names=names, image_shape=sides)
        return display.plot(ax=ax, n_features=n_features, cmap=cmap)

    def _content(self) -> tuple[NDArray, str, list[str], bool]:
        titles = [f"sample {index}" for index in self.samples or range(len(self.errors))]
        return self.errors[np.newaxis], "squared error", titles, False
