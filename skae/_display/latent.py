"""Plot of the codes of samples, and of images decoded from a grid of codes."""

from collections.abc import Sequence
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import check_consistent_length, column_or_1d

from skae._display.canvas import (
    CATEGORY_COLORS,
    CATEGORY_MARKERS,
    COLORS,
    as_colors,
    as_images,
    axes_grid,
    pyplot,
    resolved_image_shape,
    without_ticks,
)
from skae._display.fitted import Fitted, dense, first_samples, fitted_parts

# Integer labels with up to this many distinct values are classes. Chosen by reasoning.
MAX_CLASSES = 20
# Number of samples from which the limits of the colormap are computed. Chosen by reasoning.
N_SAMPLES_FOR_LIMITS = 1000


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

    def __init__(
        self,
        *,
        codes: ArrayLike,
        y: Any = None,
        components: Sequence[int] = (0, 1),
        images: Any = None,
        limits: tuple[float, float] | None = None,
    ) -> None:
        self.codes = codes
        self.y = y
        self.components = components
        self.images = images
        self.limits = limits

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
        pyplot(f"{cls.__name__}.from_estimator")
        fitted = fitted_parts(estimator)
        components = _two_codes(components, fitted.autoencoder.n_components_)
        if not isinstance(n_images, Integral) or n_images < 1:
            raise ValueError(f"n_images={n_images!r} must be an integer of at least 1.")
        if y is not None:
            check_consistent_length(X, y)
        codes = fitted.codes(X)
        example = _decoded(fitted, X, codes[:1])
        sides = resolved_image_shape(image_shape, fitted.autoencoder.input_shape, example.shape[1])
        images = limits = None
        if sides is not None:
            samples = dense(first_samples(X if fitted.is_invertible(X) else fitted.inputs(X), N_SAMPLES_FOR_LIMITS))
            limits = float(np.nanmin(samples)), float(np.nanmax(samples))
            grid, filled = _grid_of_codes(codes, components, n_images)
            decoded = np.full((n_images**2, example.shape[1]), np.nan)
            decoded[filled] = _decoded(fitted, X, grid[filled])
            images = as_images(decoded.reshape(n_images, n_images, -1), sides)
        return cls(codes=codes[:, components], y=y, components=components, images=images, limits=limits).plot(
            ax=ax, cmap=cmap
        )

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
        caller = f"{type(self).__name__}.plot"
        n_axes = 1 if self.images is None else 2
        self.axes_ = axes_grid(caller, ax, (1, n_axes), (4.6 * n_axes + 1.0, 4.6))[0]
        self.ax_ = self.axes_[0]
        self.figure_ = self.ax_.figure
        self.colorbar_ = self.grid_ = None
        codes = np.asarray(self.codes)
        kind, labels = _kind_of_labels(self.y)
        if kind == "values":
            self._plot_values(codes, labels)
        elif kind == "classes":
            self._plot_classes(codes, labels)
        else:
            self.scatters_ = [self.ax_.scatter(*codes.T, s=_area(codes), color=COLORS["autoencoder"], linewidths=0)]
        low, high = _limits(codes)
        self.ax_.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]))
        if self.images is not None:
            self._plot_images(low, high, cmap)
        first, second = self.components
        for axis in self.axes_:
            axis.set(xlabel=f"code {first}", ylabel=f"code {second}")
        return self

    def _plot_values(self, codes: NDArray, values: NDArray) -> None:
        """Draw the codes with the color of their values, and a colorbar."""
        scatter = self.ax_.scatter(*codes.T, s=_area(codes), c=values, cmap="viridis", linewidths=0)
        self.scatters_ = [scatter]
        self.colorbar_ = self.figure_.colorbar(scatter, ax=self.ax_, label=str(getattr(self.y, "name", None) or "y"))

    def _plot_classes(self, codes: NDArray, labels: NDArray) -> None:
        """Draw the codes with the color and marker of their class, and a legend."""
        self.scatters_ = []
        for index, label in enumerate(np.unique(labels)):
            marker, color = divmod(index, len(CATEGORY_COLORS))
            style = {"color": CATEGORY_COLORS[color], "marker": CATEGORY_MARKERS[marker % len(CATEGORY_MARKERS)]}
            members = codes[labels == label]
            self.scatters_.append(self.ax_.scatter(*members.T, s=_area(codes), label=str(label), linewidths=0, **style))
        n_columns = 1 + (len(self.scatters_) - 1) // 20
        position = {"loc": "center left", "bbox_to_anchor": (1.0, 0.5), "frameon": False, "handletextpad": 0.2}
        self.ax_.legend(markerscale=2.0, ncols=n_columns, **position)

    def _plot_images(self, low: NDArray, high: NDArray, cmap: Any) -> None:
        """Draw each image at the position of its codes."""
        images = self.images[::-1]  # the largest second code is at the top
        n_down, n_across, height, width = images.shape[:4]
        mosaic = np.moveaxis(images, 2, 1).reshape(n_down * height, n_across * width, *images.shape[4:])
        limits = (np.nanmin(mosaic), np.nanmax(mosaic)) if self.limits is None else self.limits
        if mosaic.ndim == 3:
            shown = ~np.isnan(mosaic[..., :1])
            mosaic = np.concatenate([np.nan_to_num(as_colors(mosaic, limits)), shown], axis=2)
        ax, extent = self.axes_[1], (low[0], high[0], low[1], high[1])
        style = {"cmap": cmap, "vmin": limits[0], "vmax": limits[1], "interpolation": "nearest", "aspect": "auto"}
        self.grid_ = ax.imshow(mosaic, extent=extent, **style)
        without_ticks(ax)
        ax.set_title("decoded", fontsize="medium")
        for axis in self.axes_:
            axis.set_box_aspect(n_down * height / (n_across * width))


def _decoded(fitted: Fitted, X: Any, codes: NDArray) -> NDArray:
    """Decode codes to samples, in the units of X if the steps before the autoencoder can be inverted."""
    samples = np.asarray(fitted.autoencoder.inverse_transform(codes))
    return fitted.inverted(samples) if fitted.is_invertible(X) else samples


def _two_codes(components: Any, n_components: int) -> list[int]:
    """Validate the indices of two codes, and return them as a list."""
    chosen = list(components) if np.iterable(components) else [components]
    valid = [isinstance(code, Integral) and 0 <= code < n_components for code in chosen]  # type: ignore[operator]
    if len(chosen) != 2 or not all(valid) or chosen[0] == chosen[1]:
        raise ValueError(
            f"components={components!r} must be two different integers from 0 to {n_components - 1}: the "
            f"autoencoder has n_components={n_components}."
        )
    return [int(code) for code in chosen]


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


def _kind_of_labels(y: Any) -> tuple[str | None, Any]:
    """Return "classes" or "values", and the labels as an array; return None twice if there are no labels."""
    if y is None:
        return None, None
    labels = column_or_1d(np.asarray(y))
    if not np.issubdtype(labels.dtype, np.number):
        return "classes", labels.astype(str)
    is_integer = np.isfinite(labels).all() and np.array_equal(labels, np.round(labels))
    if is_integer and len(np.unique(labels)) <= MAX_CLASSES:
        return "classes", labels
    return "values", labels


def _area(codes: NDArray) -> float:
    """Return the area of a point, which decreases with the number of points."""
    return float(np.clip(10_000.0 / max(len(codes), 1), 4.0, 30.0))
