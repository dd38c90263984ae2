"""Plot of the codes of samples, and of images decoded from a grid of codes."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import check_consistent_length, column_or_1d

from skae._display import canvas, fitted

# Integer labels with up to this many distinct values are classes. Chosen by reasoning.
MAX_CLASSES = 20
# Number of samples from which the limits of the colormap are computed. Chosen by reasoning.
N_SAMPLES_FOR_LIMITS = 1000


@dataclass(kw_only=True, eq=False, repr=False)
class LatentDisplay:
    """Two codes of each sample, colored by label, and images decoded from a grid of codes.

    It is recommended to create a display with `from_estimator`. All parameters are stored as attributes.

    Parameters
    ----------
    codes : array-like of shape (n_samples, 2)
        Two codes of each sample.
    y : array-like of shape (n_samples,) or None, default=None
        Labels of the samples. Strings, booleans and up to twenty different integers are classes and are shown in a
        legend. Other numbers are values and are shown in a colorbar.
    components : tuple of int, default=(0, 1)
        Indices of the two codes, for the axis labels.
    images : ndarray of shape (n_images, n_images, height, width) or (..., 3), default=None
        Images decoded from a grid of codes. The first axis is the second code and the second axis is the first code,
        both in increasing order. Images that are not drawn are NaN.
    limits : tuple of float or None, default=None
        Values at the ends of the colormap of the images. None uses the minimum and maximum of the images.

    Attributes
    ----------
    scatters_ : list of matplotlib PathCollection
        The codes, with one collection for each class.
    grid_ : matplotlib AxesImage or None
        The decoded images.
    colorbar_ : matplotlib Colorbar or None
        The colorbar, if the labels are values.
    ax_ : matplotlib Axes
        The axes with the codes.
    axes_ : ndarray of matplotlib Axes
        The axes with the codes and, if there are images, the axes with the images. Each image is drawn at the position
        of its codes.
    figure_ : matplotlib Figure
        The figure that contains the axes.

    See Also
    --------
    ReconstructionDisplay : Samples and their reconstructions.
    LatentLoadingsDisplay : Effects of features on codes, and of codes on features.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skae import AutoEncoderTransformer, LatentDisplay
    >>> X, y = load_digits(return_X_y=True)
    >>> autoencoder = AutoEncoderTransformer(2, max_epochs=5, random_state=0).fit(X[:300])
    >>> display = LatentDisplay.from_estimator(autoencoder, X[:300], y[:300], image_shape=(8, 8))
    >>> len(display.scatters_), display.axes_.shape
    (10, (2,))
    """

    codes: ArrayLike
    y: Any = None
    components: Sequence[int] = (0, 1)
    images: Any = None
    limits: tuple[float, float] | None = None

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        y: Any = None,
        *,
        components: Sequence[int] = (0, 1),
        image_shape: Any = "auto",
        n_images: int = 12,
        ax: Any = None,
        cmap: Any = "gray",
    ) -> "LatentDisplay":
        """Draw the codes of X.

        Parameters
        ----------
        estimator : AutoEncoderTransformer or Pipeline
            Fitted autoencoder, or fitted pipeline whose last step is an autoencoder.
        X : {array-like, sparse matrix or array} of shape (n_samples, n_features)
            Samples in the units of the training samples.
        y : array-like of shape (n_samples,), default=None
            Labels of the samples. Strings, booleans and up to twenty different integers are classes and are shown in a
            legend. Other numbers are values and are shown in a colorbar.
        components : tuple of int, default=(0, 1)
            Indices of the two codes to draw. In the grid that is decoded, the other codes are set to their medians.
        image_shape : "auto", tuple of int or None, default="auto"
            Shape of the images that the samples represent: (height, width) or (channels, height, width) with 1 or 3
            channels. None draws no images. "auto" uses the ``input_shape`` of the autoencoder.
        n_images : int, default=12
            Number of images along each side of the grid. An image is drawn only if the codes of a sample are in its
            cell of the grid, because the decoder has not learned to decode other codes.
        ax : matplotlib Axes or array of Axes, default=None
            Axes to draw on. If there are images, two axes or a single one that is divided. None creates a new figure.
        cmap : str or matplotlib Colormap, default="gray"
            Colormap of images with one channel.

        Returns
        -------
        LatentDisplay
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
        components = canvas.selected_codes(components, autoencoder.n_components_, two=True)
        canvas.check_count("n_images", n_images)
        check_consistent_length(X, y)
        inputs = before.transform(X)
        codes = np.asarray(autoencoder.transform(inputs))
        samples, invertible = fitted.drawn_samples(before, X, inputs, N_SAMPLES_FOR_LIMITS)
        sides = canvas.resolved_image_shape(image_shape, autoencoder.input_shape, samples.shape[1])
        images = limits = None
        if sides is not None:
            limits = float(np.nanmin(samples)), float(np.nanmax(samples))
            grid, filled = _grid_of_codes(codes, components, n_images)
            decoded = np.asarray(autoencoder.inverse_transform(grid[filled]))
            flat = np.full((n_images**2, samples.shape[1]), np.nan)
            flat[filled] = fitted.dense(before.inverse_transform(decoded)) if invertible else decoded
            images = canvas.as_images(flat.reshape(n_images, n_images, -1), sides)
        display = cls(codes=codes[:, components], y=y, components=components, images=images, limits=limits)
        return display.plot(ax=ax, cmap=cmap)

    def plot(self, ax: Any = None, *, cmap: Any = "gray") -> "LatentDisplay":
        """Draw the plot.

        Parameters
        ----------
        ax : matplotlib Axes or array of Axes, default=None
            Axes to draw on. If there are images, two axes or a single one that is divided. None creates a new figure.
        cmap : str or matplotlib Colormap, default="gray"
            Colormap of images with one channel.

        Returns
        -------
        LatentDisplay
            The display.

        Raises
        ------
        ValueError
            If ``ax`` is invalid.
        ImportError
            If matplotlib is not installed.
        """
        n_axes = 1 if self.images is None else 2
        self.axes_ = canvas.axes_grid(self, ax, (1, n_axes), (4.6 * n_axes + 1.0, 4.6), images=True)[0]
        self.ax_, self.figure_ = self.axes_[0], self.axes_[0].figure
        self.colorbar_ = self.grid_ = None
        codes = np.asarray(self.codes)
        self._plot_codes(codes)
        low, high = _limits(codes)
        self.ax_.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]))
        if self.images is not None:
            self._plot_images(low, high, cmap)
        first, second = self.components
        for axis in self.axes_:
            axis.set(xlabel=f"code {first}", ylabel=f"code {second}")
        return self

    def _plot_codes(self, codes: NDArray) -> None:
        """Draw the codes in one color, in the colors and markers of classes, or in the colors of values."""
        labels: Any = None if self.y is None else column_or_1d(np.asarray(self.y))
        # The area of a point decreases with the number of points.
        area = float(np.clip(10_000.0 / max(len(codes), 1), 4.0, 30.0))

        def scatter(points: NDArray, **style: Any) -> Any:
            return self.ax_.scatter(*points.T, s=area, linewidths=0, **style)

        if labels is None:
            self.scatters_ = [scatter(codes, color=canvas.COLORS["autoencoder"])]
        elif _are_classes(labels):
            labels = labels if np.issubdtype(labels.dtype, np.number) else labels.astype(str)
            styles = zip(np.unique(labels), itertools.cycle(canvas.CATEGORY_STYLES), strict=False)
            self.scatters_ = [scatter(codes[labels == label], label=str(label), **style) for label, style in styles]
            position = {"loc": "center left", "bbox_to_anchor": (1.0, 0.5), "frameon": False, "handletextpad": 0.2}
            self.ax_.legend(markerscale=2.0, ncols=1 + (len(self.scatters_) - 1) // 20, **position)
        else:
            self.scatters_ = [scatter(codes, c=labels, cmap="viridis")]
            name = str(getattr(self.y, "name", None) or "y")
            self.colorbar_ = self.figure_.colorbar(self.scatters_[0], ax=self.ax_, label=name)

    def _plot_images(self, low: NDArray, high: NDArray, cmap: Any) -> None:
        """Draw each image at the position of its codes."""
        # The largest second code is at the top.
        mosaic = np.concatenate(np.concatenate(self.images[::-1], axis=1), axis=1)
        limits = (np.nanmin(mosaic), np.nanmax(mosaic)) if self.limits is None else self.limits
        extent = low[0], high[0], low[1], high[1]
        self.grid_ = canvas.show_image(self.axes_[1], mosaic, limits, cmap, extent=extent, aspect="auto")
        self.axes_[1].set_title("decoded", fontsize="medium")
        for axis in self.axes_:
            axis.set_box_aspect(mosaic.shape[0] / mosaic.shape[1])


def _limits(codes: NDArray) -> tuple[NDArray, NDArray]:
    """Return the minimum and maximum of each code with a margin."""
    low, high = codes.min(axis=0), codes.max(axis=0)
    margin = np.where(high > low, 0.03 * (high - low), 0.5)
    return low - margin, high + margin


def _grid_of_codes(codes: NDArray, components: list[int], n_images: int) -> tuple[NDArray, NDArray]:
    """Return the codes at the centers of a grid over two of them, and whether each cell contains a sample."""
    low, high = _limits(codes[:, components])
    steps = (np.arange(n_images) + 0.5) / n_images
    across, up = (low[axis] + steps * (high[axis] - low[axis]) for axis in (0, 1))
    grid = np.tile(np.median(codes, axis=0), (n_images**2, 1))
    grid[:, components] = np.stack(np.meshgrid(across, up), axis=2).reshape(-1, 2)
    column, row = ((codes[:, components] - low) / (high - low) * n_images).astype(int).clip(0, n_images - 1).T
    return grid.astype(codes.dtype), np.isin(np.arange(n_images**2), row * n_images + column)


def _are_classes(labels: NDArray) -> bool:
    """Return whether labels are classes, which are strings, booleans, or few different integers."""
    if not np.issubdtype(labels.dtype, np.number):
        return True
    is_integer = np.isfinite(labels).all() and np.array_equal(labels, np.round(labels))
    return bool(is_integer) and len(np.unique(labels)) <= MAX_CLASSES
