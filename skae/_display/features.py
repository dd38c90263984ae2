"""Grid of plots of the features: what the displays of contributions and of reconstruction errors have in common."""

from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from skae._display import canvas

# Width of a plot of bars and height of a bar, in inches.
BARS_WIDTH, BAR_HEIGHT = 2.8, 0.22


class FeatureGrid:
    """Values of the features, as bars or as images, in a grid of axes.

    A subclass has the attributes below as parameters, and defines `_content`.

    Attributes
    ----------
    feature_names : sequence of str or None
        Names of the features. None numbers them.
    image_shape : tuple of int or None
        Shape (height, width) or (3, height, width) of the images that the samples represent. None draws bars.
    """

    feature_names: Any
    image_shape: Any

    def _content(self) -> tuple[NDArray, str, list[str], bool]:
        """Return what is drawn.

        Returns
        -------
        values : ndarray of shape (n_rows, n_columns, n_features)
            The values. NaN is not drawn.
        label : str
            What the values are called.
        titles : list of str
            The titles of the columns.
        signed : bool
            Whether the values have signs. Colors are then symmetric around zero; otherwise, they start at zero.
        """
        raise NotImplementedError

    def plot(self, ax: Any = None, *, n_features: int = 8, cmap: Any = None) -> Self:
        """Draw the plot.

        Parameters
        ----------
        ax : matplotlib Axes or array of Axes, default=None
            Axes to draw on: as many as are needed, or a single one that is divided. None creates a new figure.
        n_features : int, default=8
            Maximum number of bars in each axes: the features with the largest values, by absolute value.
        cmap : str or matplotlib Colormap, default=None
            Colormap of images. None uses "RdBu_r" for values with signs, and "viridis" for others.

        Returns
        -------
        Self
            The display.

        Raises
        ------
        ValueError
            If ``ax`` or ``n_features`` is invalid.
        ImportError
            If matplotlib is not installed.
        """
        canvas.check_count("n_features", n_features)
        values, label, titles, signed = self._content()
        images = self.image_shape is not None
        if images:  # the channels of color images are summed
            values = values.reshape(*values.shape[:2], -1, *self.image_shape[-2:]).sum(axis=2)
        shape, n_bars = values.shape[:2], min(n_features, values.shape[-1])
        width, height = (canvas.IMAGE_SIDE,) * 2 if images else (BARS_WIDTH, BAR_HEIGHT * n_bars + 0.6)
        size = min(width * shape[1] + 1.2, canvas.MAX_WIDTH), height * shape[0] + 0.6
        self.axes_ = canvas.axes_grid(self, ax, shape, size, images=images)
        self.figure_ = self.axes_[0, 0].figure
        self.artists_ = np.empty(shape, dtype=object)
        largest = float(np.nanmax(np.abs(values), initial=0.0)) or 1.0
        limits, default = ((-largest, largest), "RdBu_r") if signed else ((0.0, largest), "viridis")
        for position, axes in np.ndenumerate(self.axes_):
            if images:
                self.artists_[position] = canvas.show_image(axes, values[position], limits, cmap or default)
            else:
                self.artists_[position] = self._draw_bars(axes, values[position], n_bars)
        for axes, title in zip(self.axes_[0], titles, strict=True):
            axes.set_title(title, fontsize="medium")
        self.colorbar_ = None
        if images:
            self.colorbar_ = self.figure_.colorbar(self.artists_[0, 0], ax=list(self.axes_.flat), label=label)
        else:
            for axes in self.axes_[-1]:
                axes.set_xlabel(label)
        return self

    def _draw_bars(self, ax: Any, values: NDArray, n_bars: int) -> Any:
        """Draw horizontal bars of the largest values, the largest at the top. Missing values come last."""
        features = np.argsort(-np.nan_to_num(np.abs(values), nan=-1.0), kind="stable")[:n_bars]
        names = range(len(values)) if self.feature_names is None else self.feature_names
        colors = [canvas.COLORS["autoencoder" if value > 0 else "PCA"] for value in values[features]]
        bars = ax.barh(range(n_bars), values[features], color=colors)
        ax.set_yticks(range(n_bars), [str(names[feature]) for feature in features])
        ax.invert_yaxis()
        ax.locator_params(axis="x", nbins=4)
        ax.axvline(0.0, color="0.5", linewidth=0.8)
        if self.feature_names is None:
            ax.set_ylabel("feature")
        return bars
