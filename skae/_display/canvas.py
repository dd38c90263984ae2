"""Helpers for plots: the import of matplotlib, grids of axes, colors, and samples as images."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

# Colors of the palette of M. Okabe and K. Ito, which is suitable for color-blind readers.
COLORS = {"original": "#000000", "autoencoder": "#D55E00", "PCA": "#0072B2", "best": "#009E73"}
# Ten colors for categories by M. A. Petroff, which are suitable for color-blind readers. Further categories differ by
# their marker.
CATEGORY_COLORS = (
    "#3f90da", "#ffa90e", "#bd1f01", "#94a4a2", "#832db6", "#a96b59", "#e76300", "#b9ac70", "#717581", "#92dadd",
)  # fmt: skip
CATEGORY_MARKERS = ("o", "^", "s", "D", "v", "P", "X", "<", ">", "*")


def pyplot(caller: str) -> Any:
    """Import `matplotlib.pyplot`.

    Parameters
    ----------
    caller : str
        Name of the calling function, for the error message.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    """
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError(f'{caller} requires matplotlib. Install it with pip install "skae[plot]".') from error
    return plt


def one_axes(caller: str, ax: Any, size: tuple[float, float] = (6.4, 4.4)) -> Any:
    """Return the given axes, or create a figure with axes if ``ax`` is None."""
    plt = pyplot(caller)
    return plt.subplots(figsize=size, layout="constrained")[1] if ax is None else ax


def axes_grid(
    caller: str, ax: Any, shape: tuple[int, int], size: tuple[float, float], layout: str = "compressed"
) -> NDArray:
    """Return axes in rows and columns.

    Parameters
    ----------
    caller : str
        Name of the calling function, for the error message.
    ax : matplotlib Axes, array of Axes or None
        Axes that are divided into a grid, or as many axes as the grid has. None creates a figure.
    shape : tuple of int
        Number of rows and columns.
    size : tuple of float
        Width and height of the figure in inches.
    layout : str, default="compressed"
        Layout of the figure.

    Returns
    -------
    ndarray of matplotlib Axes
        Axes of the given shape.

    Raises
    ------
    ValueError
        If ``ax`` has another number of axes, or is a single axes that is not part of a grid and cannot be divided.
    """
    plt = pyplot(caller)
    if ax is None:
        return plt.subplots(*shape, figsize=size, squeeze=False, layout=layout)[1]
    if isinstance(ax, plt.Axes):
        return _divided(ax, shape)
    axes = np.asarray(ax, dtype=object)
    if axes.size != math.prod(shape):
        raise ValueError(
            f"ax has {axes.size} axes, but {caller} needs {math.prod(shape)}: {shape[0]} rows of {shape[1]}. Pass "
            f"plt.subplots({shape[0]}, {shape[1]})[1], a single axes that can be divided, or None."
        )
    return axes.reshape(shape)


def _divided(ax: Any, shape: tuple[int, int]) -> NDArray:
    """Divide axes into a grid of axes."""
    if shape == (1, 1):
        return np.array([[ax]], dtype=object)
    spec = ax.get_subplotspec()
    if spec is None:
        raise ValueError(
            f"ax is not part of a grid, so it cannot be divided into {shape[0]} rows of {shape[1]} axes. Pass axes "
            f"created by plt.subplots, or an array of {math.prod(shape)} axes."
        )
    ax.set_axis_off()
    grid = spec.subgridspec(*shape)
    return np.array([[ax.figure.add_subplot(grid[i, j]) for j in range(shape[1])] for i in range(shape[0])])


def resolved_image_shape(image_shape: Any, input_shape: Any, n_features: int) -> tuple[int, ...] | None:
    """Determine the shape of the images that the samples represent.

    Parameters
    ----------
    image_shape : "auto", tuple of int or None
        Parameter of the display. "auto" uses ``input_shape`` if it is the shape of an image.
    input_shape : tuple of int or None
        Parameter of the autoencoder.
    n_features : int
        Number of features.

    Returns
    -------
    tuple of int or None
        (height, width), or (3, height, width) for color images. None if samples are not drawn as images.

    Raises
    ------
    ValueError
        If ``image_shape`` is not the shape of an image with ``n_features`` values.
    """
    if isinstance(image_shape, str) and image_shape == "auto":
        sides = () if input_shape is None else _without_one_channel(input_shape)
        return sides if _is_image(sides) and math.prod(sides) == n_features else None
    if image_shape is None:
        return None
    sides = _without_one_channel(image_shape) if np.ndim(image_shape) == 1 else ()
    if not _is_image(sides) or math.prod(sides) != n_features:
        raise ValueError(
            f"image_shape={image_shape!r} must be 'auto', None, (height, width) or (channels, height, width) with 1 or "
            f"3 channels and a product of {n_features}, the number of features."
        )
    return sides


def _without_one_channel(shape: Any) -> tuple[int, ...]:
    """Return a shape as integers, without the channels if there is only one."""
    sides = tuple(int(side) for side in shape)
    return sides[1:] if len(sides) == 3 and sides[0] == 1 else sides


def _is_image(sides: Sequence[int]) -> bool:
    """Return whether a shape is (height, width) or (3, height, width)."""
    return len(sides) in (2, 3) and min(sides) > 0 and (len(sides) == 2 or sides[0] == 3)


def as_images(samples: ArrayLike, sides: tuple[int, ...]) -> NDArray:
    """Reshape samples to images, with the color channels last as matplotlib expects."""
    images = np.reshape(samples, (*np.shape(samples)[:-1], *sides))
    return np.moveaxis(images, -3, -1) if len(sides) == 3 else images


def show_image(ax: Any, image: NDArray, limits: tuple[float, float], cmap: Any) -> Any:
    """Draw an image without ticks, with its values scaled from the limits to 0 and 1."""
    if image.ndim == 3:
        image = as_colors(image, limits)
    artist = ax.imshow(image, cmap=cmap, vmin=limits[0], vmax=limits[1], interpolation="nearest")
    without_ticks(ax)
    return artist


def as_colors(image: NDArray, limits: tuple[float, float]) -> NDArray:
    """Scale values from the limits to 0 and 1, and clip them."""
    low, high = limits
    return np.clip((image - low) / ((high - low) or 1.0), 0.0, 1.0)


def without_ticks(ax: Any) -> None:
    """Remove the ticks and draw a light gray frame."""
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_color("0.8")


def label_row(ax: Any, text: str) -> None:
    """Write a horizontal label beside the first axes of a row."""
    ax.set_ylabel(text, rotation=0, ha="right", va="center", labelpad=8)
