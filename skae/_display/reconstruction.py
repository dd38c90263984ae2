"""Plot of samples and their reconstructions by an autoencoder and by PCA."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skae._display import canvas, fitted

# Number of line plots beside each other.
PROFILE_COLUMNS = 4
# Side of an image, and width and height of a line plot, in inches.
IMAGE_SIDE = 1.0
PROFILE_SIZE = (2.6, 1.8)


@dataclass(kw_only=True, eq=False, repr=False)
class ReconstructionDisplay:
    """Samples and their reconstructions by an autoencoder and by PCA with the same number of components.

    It is recommended to create a display with `from_estimator`. All parameters are stored as attributes.

    Parameters
    ----------
    rows : dict of str to ndarray of shape (n_samples, n_features)
        The samples and their reconstructions by name, the original samples first.
    image_shape : tuple of int or None, default=None
        Shape (height, width) or (3, height, width) of the images that the samples represent. None draws the samples as
        lines over the features.
    scores : dict of str to float, default=None
        Explained variance ratio by name, for the labels.

    Attributes
    ----------
    axes_ : ndarray of matplotlib Axes
        The axes. For images, of shape (n_names, n_samples), with the original samples in the first row. For lines, one
        axes for each sample, in rows of up to four.
    artists_ : dict of str to list
        The image or line of each sample, by name.
    figure_ : matplotlib Figure
        The figure that contains the axes.

    See Also
    --------
    LatentDisplay : Codes, and images decoded from a grid of codes.
    AutoEncoderTransformer : The autoencoder.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skae import AutoEncoderTransformer, ReconstructionDisplay
    >>> X = load_digits().data
    >>> autoencoder = AutoEncoderTransformer(8, max_epochs=5, random_state=0).fit(X[:300])
    >>> display = ReconstructionDisplay.from_estimator(autoencoder, X[300:], n_samples=5, image_shape=(8, 8))
    >>> display.axes_.shape
    (3, 5)
    """

    rows: dict[str, NDArray]
    image_shape: Any = None
    scores: dict[str, float] | None = None

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        *,
        n_samples: int = 8,
        image_shape: Any = "auto",
        X_train: Any = None,
        ax: Any = None,
        cmap: Any = "gray",
    ) -> "ReconstructionDisplay":
        """Draw the first samples of X and their reconstructions.

        Parameters
        ----------
        estimator : AutoEncoderTransformer or Pipeline
            Fitted autoencoder, or fitted pipeline whose last step is an autoencoder. Images are in the units of X if
            the steps before it have an inverse transform. Otherwise, they are in the units of its input.
        X : {array-like, sparse matrix or array} of shape (n_samples, n_features)
            Samples in the units of the training samples. The explained variance ratios are computed from all of them.
        n_samples : int, default=8
            Number of samples to draw.
        image_shape : "auto", tuple of int or None, default="auto"
            Shape of the images that the samples represent: (height, width) or (channels, height, width) with 1 or 3
            channels. None draws lines over the features. "auto" uses the ``input_shape`` of the autoencoder.
        X_train : {array-like, sparse matrix or array} of shape (n_train, n_features), default=None
            Samples to fit PCA. None uses the PCA from which the autoencoder was initialized, or draws no PCA with
            ``linear_skip=False``.
        ax : matplotlib Axes or array of Axes, default=None
            Axes to draw on: as many as are needed, or a single one that is divided. None creates a new figure.
        cmap : str or matplotlib Colormap, default="gray"
            Colormap of images with one channel.

        Returns
        -------
        ReconstructionDisplay
            The display, which stores the data of the plot.

        Raises
        ------
        ValueError
            If ``n_samples``, ``image_shape`` or ``ax`` is invalid, or X does not have the features of the estimator.
        TypeError
            If ``estimator`` is neither an AutoEncoderTransformer nor a Pipeline that ends with one.
        ImportError
            If matplotlib is not installed.
        """
        canvas.pyplot(f"{cls.__name__}.from_estimator")
        before, autoencoder = fitted.parts(estimator)
        canvas.check_count("n_samples", n_samples)
        inputs = before.transform(X)
        first = fitted.first_samples(inputs, n_samples)
        rows = {"original": fitted.dense(first), "autoencoder": fitted.reconstructed(autoencoder, first)}
        scores = {"autoencoder": autoencoder.score(inputs)}
        if X_train is not None:
            pca = fitted.pca_baseline(autoencoder, autoencoder.n_components_).fit(before.transform(X_train))
            rows["PCA"], scores["PCA"] = fitted.reconstructed(pca, first), pca.score(inputs)
        elif fitted.has_pca(autoencoder):
            rows["PCA"], scores["PCA"] = fitted.initial_pca(autoencoder, inputs, n_samples)
        original, invertible = fitted.drawn_samples(before, X, inputs, n_samples)
        sides = canvas.resolved_image_shape(image_shape, autoencoder.input_shape, original.shape[1])
        # Features with different units can be drawn on the same axis only as scaled by the steps before.
        if sides is not None and invertible:
            rows = {name: fitted.dense(before.inverse_transform(values)) for name, values in rows.items()}
            rows["original"] = original
        return cls(rows=rows, image_shape=sides, scores=scores).plot(ax=ax, cmap=cmap)

    def plot(self, ax: Any = None, *, cmap: Any = "gray") -> "ReconstructionDisplay":
        """Draw the plot.

        Parameters
        ----------
        ax : matplotlib Axes or array of Axes, default=None
            Axes to draw on: as many as are needed, or a single one that is divided. None creates a new figure.
        cmap : str or matplotlib Colormap, default="gray"
            Colormap of images with one channel.

        Returns
        -------
        ReconstructionDisplay
            The display.

        Raises
        ------
        ValueError
            If ``ax`` is invalid.
        ImportError
            If matplotlib is not installed.
        """
        if self.image_shape is None:
            self._plot_profiles(ax)
        else:
            self._plot_images(ax, cmap)
        self.figure_ = self.axes_.flat[0].figure
        return self

    def _label(self, name: str, separator: str) -> str:
        """Return a name and its explained variance ratio."""
        score = (self.scores or {}).get(name)
        return name if score is None else f"{name}{separator}{score:.1%} explained"

    def _plot_images(self, ax: Any, cmap: Any) -> None:
        """Draw a row of images for each name."""
        originals = next(iter(self.rows.values()))
        shape = len(self.rows), len(originals)
        size = IMAGE_SIDE * shape[1] + 1.4, IMAGE_SIDE * shape[0] + 0.2
        self.axes_ = canvas.axes_grid(self, ax, shape, size, images=True)
        limits = np.nanmin(originals), np.nanmax(originals)
        self.artists_ = {}
        for (name, values), axes in zip(self.rows.items(), self.axes_, strict=True):
            pairs = zip(axes, canvas.as_images(values, self.image_shape), strict=True)
            self.artists_[name] = [canvas.show_image(axis, image, limits, cmap) for axis, image in pairs]
            canvas.label_row(axes[0], self._label(name, "\n"))

    def _plot_profiles(self, ax: Any) -> None:
        """Draw the samples as lines, with one axes for each sample and one line for each name."""
        n_samples = len(next(iter(self.rows.values())))
        n_columns = min(n_samples, PROFILE_COLUMNS)
        shape = math.ceil(n_samples / n_columns), n_columns
        size = PROFILE_SIZE[0] * shape[1], PROFILE_SIZE[1] * shape[0] + 0.6
        self.axes_ = canvas.axes_grid(self, ax, shape, size)
        self.artists_ = {}
        for name, values in self.rows.items():
            width, alpha = (2.5, 0.3) if name == "original" else (1.2, 1.0)
            style = {"color": canvas.COLORS[name], "linewidth": width, "alpha": alpha, "label": self._label(name, ", ")}
            pairs = zip(self.axes_.flat, values, strict=False)
            self.artists_[name] = [axis.plot(row, **style)[0] for axis, row in pairs]
        for axis in self.axes_.flat[n_samples:]:
            axis.set_visible(False)
        for axis in self.axes_[:, 0]:
            axis.set_ylabel("value")
        for axis in self.axes_[-1]:
            axis.set_xlabel("feature")
        handles, first = [lines[0] for lines in self.artists_.values()], self.axes_[0, 0]
        if ax is None:
            first.figure.legend(handles=handles, loc="outside upper center", ncols=len(handles))
        else:
            # The legend may be larger than the axes. The layout must not shrink them, nor other axes cover it.
            first.legend(handles, list(self.artists_), fontsize="x-small").set_in_layout(False)
            first.set_zorder(1)
