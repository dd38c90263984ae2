"""The picture of the codes, and of what the decoder makes of a grid of them."""

from numbers import Integral

import numpy as np
from sklearn.utils import check_consistent_length, column_or_1d

from skae._display.canvas import (
    CATEGORY_COLOURS,
    CATEGORY_MARKERS,
    COLOURS,
    as_colours,
    as_images,
    axes_grid,
    pyplot,
    resolved_image_shape,
    without_ticks,
)
from skae._display.fitted import dense, first_samples, fitted_parts

# More numbers than this are values, fewer are names of classes.
MOST_CLASSES = 20
# Samples that say how dark and bright images are.
ROWS_FOR_LIMITS = 1000


class LatentDisplay:
    """Two of the codes of rows, coloured by label, and images decoded along a grid of them.

    It is recommended to create one by `from_estimator`. All parameters are stored as attributes.

    Parameters
    ----------
    codes : array-like of shape (n_samples, 2)
        Two codes of each row.
    y : array-like of shape (n_samples,) or None, default=None
        Labels. Words, booleans and up to twenty different whole numbers are classes and get a legend; other numbers
        are values and get a colour bar.
    components : tuple of int, default=(0, 1)
        Which codes they are, for the labels.
    images : ndarray of shape (n_images, n_images, height, width) or (..., 3), default=None
        Images decoded along a grid over the codes, from the lowest codes on, the second code first; NaN where there is
        none to show.
    limits : tuple of float or None, default=None
        Values at the ends of the images' colours. None is the lowest and highest of the images.

    Attributes
    ----------
    scatters_ : list of matplotlib PathCollection
        The codes, of each class in turn.
    grid_ : matplotlib AxesImage or None
        The decoded images.
    colorbar_ : matplotlib Colorbar or None
        Of values.
    ax_ : matplotlib Axes
        Where the codes are.
    axes_ : ndarray of matplotlib Axes
        Where the codes are, and where the images are if there are any: an image is at the place of its codes.
    figure_ : matplotlib Figure
        Where the axes are.

    See Also
    --------
    ReconstructionDisplay : Samples and what comes back of them.
    LatentLoadingsDisplay : Which features drive which code.

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

    def __init__(self, *, codes, y=None, components=(0, 1), images=None, limits=None):
        self.codes = codes
        self.y = y
        self.components = components
        self.images = images
        self.limits = limits

    @classmethod
    def from_estimator(
        cls, estimator, X, y=None, *, components=(0, 1), image_shape="auto", n_images=12, ax=None, cmap="gray"
    ):
        """Draw the codes of X.

        Parameters
        ----------
        estimator : AutoEncoderTransformer or Pipeline
            Fitted; a pipeline ends with the autoencoder.
        X : {array-like, sparse matrix or array} of shape (n_samples, n_features)
            Samples in the units of the training rows.
        y : array-like of shape (n_samples,), default=None
            Labels. Words, booleans and up to twenty different whole numbers are classes and get a legend; other
            numbers are values and get a colour bar.
        components : tuple of int, default=(0, 1)
            Which two codes. The others have their medians in the decoded images.
        image_shape : "auto", tuple of int or None, default="auto"
            Height and width of the images that rows are, behind a 1 or 3 for channels. None draws no images. "auto"
            is the estimator's ``input_shape``.
        n_images : int, default=12
            Images along each side of the grid. Only those are drawn at whose place there are codes: what the decoder
            makes of others, it has learnt from no row.
        ax : matplotlib Axes or array of Axes, default=None
            Where to draw: one axes, which is divided if there are images, or two then; None makes a new figure.
        cmap : str or matplotlib Colormap, default="gray"
            Colours of images with one channel.

        Returns
        -------
        LatentDisplay
            The picture and its data.

        Raises
        ------
        ValueError
            If a parameter is not as described, or X does not have the estimator's features.
        TypeError
            If there is no autoencoder.
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
            shown = dense(first_samples(X if fitted.undoes(X) else fitted.inputs(X), ROWS_FOR_LIMITS))
            limits = float(np.nanmin(shown)), float(np.nanmax(shown))
            grid, filled = _grid_of_codes(codes, components, n_images)
            rows = np.full((n_images**2, example.shape[1]), np.nan)
            rows[filled] = _decoded(fitted, X, grid[filled])
            images = as_images(rows.reshape(n_images, n_images, -1), sides)
        return cls(codes=codes[:, components], y=y, components=components, images=images, limits=limits).plot(
            ax=ax, cmap=cmap
        )

    def plot(self, ax=None, *, cmap="gray"):
        """Draw.

        Parameters
        ----------
        ax : matplotlib Axes or array of Axes, default=None
            Where to draw: one axes, which is divided if there are images, or two then; None makes a new figure.
        cmap : str or matplotlib Colormap, default="gray"
            Colours of images with one channel.

        Returns
        -------
        LatentDisplay
            The display itself.

        Raises
        ------
        ValueError
            If ``ax`` is not as described.
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
            self.scatters_ = [self.ax_.scatter(*codes.T, s=_area(codes), color=COLOURS["autoencoder"], linewidths=0)]
        low, high = _limits(codes)
        self.ax_.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]))
        if self.images is not None:
            self._plot_images(low, high, cmap)
        first, second = self.components
        for one in self.axes_:
            one.set(xlabel=f"code {first}", ylabel=f"code {second}")
        return self

    def _plot_values(self, codes, values):
        """One colour for each value."""
        scatter = self.ax_.scatter(*codes.T, s=_area(codes), c=values, cmap="viridis", linewidths=0)
        self.scatters_ = [scatter]
        self.colorbar_ = self.figure_.colorbar(scatter, ax=self.ax_, label=str(getattr(self.y, "name", None) or "y"))

    def _plot_classes(self, codes, labels):
        """One colour for each class; after ten the marker changes."""
        self.scatters_ = []
        for index, label in enumerate(np.unique(labels)):
            turn, colour = divmod(index, len(CATEGORY_COLOURS))
            style = {"color": CATEGORY_COLOURS[colour], "marker": CATEGORY_MARKERS[turn % len(CATEGORY_MARKERS)]}
            own = codes[labels == label]
            self.scatters_.append(self.ax_.scatter(*own.T, s=_area(codes), label=str(label), linewidths=0, **style))
        n_features = 1 + (len(self.scatters_) - 1) // 20
        outside = {"loc": "center left", "bbox_to_anchor": (1.0, 0.5), "frameon": False, "handletextpad": 0.2}
        self.ax_.legend(markerscale=2.0, ncols=n_features, **outside)

    def _plot_images(self, low, high, cmap):
        """All images side by side, each at the place of its codes."""
        images = self.images[::-1]  # the highest codes are at the top
        n_down, n_across, height, width = images.shape[:4]
        mosaic = np.moveaxis(images, 2, 1).reshape(n_down * height, n_across * width, *images.shape[4:])
        limits = (np.nanmin(mosaic), np.nanmax(mosaic)) if self.limits is None else self.limits
        if mosaic.ndim == 3:
            shown = ~np.isnan(mosaic[..., :1])
            mosaic = np.concatenate([np.nan_to_num(as_colours(mosaic, limits)), shown], axis=2)
        ax, extent = self.axes_[1], (low[0], high[0], low[1], high[1])
        style = {"cmap": cmap, "vmin": limits[0], "vmax": limits[1], "interpolation": "nearest", "aspect": "auto"}
        self.grid_ = ax.imshow(mosaic, extent=extent, **style)
        without_ticks(ax)
        ax.set_title("decoded", fontsize="medium")
        for one in self.axes_:
            one.set_box_aspect(n_down * height / (n_across * width))


def _decoded(fitted, X, codes):
    """Samples of codes, in the units of X where the steps before can be undone."""
    rows = np.asarray(fitted.autoencoder.inverse_transform(codes))
    return fitted.undone(rows) if fitted.undoes(X) else rows


def _two_codes(components, n_components):
    """A list of two codes that there are."""
    chosen = list(components) if np.iterable(components) else [components]
    known = [isinstance(code, Integral) and 0 <= code < n_components for code in chosen]
    if len(chosen) != 2 or not all(known) or chosen[0] == chosen[1]:
        raise ValueError(
            f"components={components!r} must be two different whole numbers from 0 to {n_components - 1}: the "
            f"autoencoder has n_components={n_components}."
        )
    return [int(code) for code in chosen]


def _limits(codes):
    """Lowest and highest codes with a margin."""
    low, high = codes.min(axis=0), codes.max(axis=0)
    margin = np.where(high > low, 0.03 * (high - low), 0.5)
    return low - margin, high + margin


def _grid_of_codes(codes, components, n_images):
    """Codes in the middles of the cells of a grid over two of them, and whether any row is in a cell."""
    low, high = _limits(codes[:, components])
    steps = (np.arange(n_images) + 0.5) / n_images
    across, up = (low[axis] + steps * (high[axis] - low[axis]) for axis in (0, 1))
    grid = np.tile(np.median(codes, axis=0), (n_images**2, 1))
    grid[:, components] = np.stack(np.meshgrid(across, up), axis=2).reshape(-1, 2)
    column, row = ((codes[:, components] - low) / (high - low) * n_images).astype(int).clip(0, n_images - 1).T
    return grid.astype(codes.dtype), np.isin(np.arange(n_images**2), row * n_images + column)


def _kind_of_labels(y):
    """Whether labels are classes or values, or None if there are none; and the labels as an array."""
    if y is None:
        return None, None
    labels = column_or_1d(np.asarray(y))
    if not np.issubdtype(labels.dtype, np.number):
        return "classes", labels.astype(str)
    whole = np.isfinite(labels).all() and np.array_equal(labels, np.round(labels))
    if whole and len(np.unique(labels)) <= MOST_CLASSES:
        return "classes", labels
    return "values", labels


def _area(codes):
    """Area of a point: the more there are, the smaller."""
    return float(np.clip(10_000.0 / max(len(codes), 1), 4.0, 30.0))
