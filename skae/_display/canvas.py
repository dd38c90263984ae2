"""Helpers for plots: the import of matplotlib, grids of axes, colors, checks of parameters, and samples as images."""

import math
from numbers import Integral
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
CATEGORY_STYLES = [{"color": color, "marker": marker} for marker in "o^sDvPX<>*" for color in CATEGORY_COLORS]

# Sides of an image, and maximum width of the figure, in inches.
IMAGE_SIDE, MAX_WIDTH = 1.2, 16.0


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


def axes_grid(
    display: Any, ax: Any, shape: tuple[int, int] = (1, 1), size: tuple[float, float] = (6.4, 4.4), images: bool = False
) -> NDArray:
    """Return axes in rows and columns.

    Parameters
    ----------
    display : object
        The display that draws on the axes, for the error messages.
    ax : matplotlib Axes, array of Axes or None
        Axes that are divided into a grid, or as many axes as the grid has. None creates a figure.
    shape : tuple of int, default=(1, 1)
        Number of rows and columns.
    size : tuple of float, default=(6.4, 4.4)
        Width and height of the figure in inches.
    images : bool, default=False
        Whether the axes contain images, which a new figure places without gaps between them.

    Returns
    -------
    ndarray of matplotlib Axes
        Axes of the given shape.

    Raises
    ------
    ValueError
        If ``ax`` has another number of axes, or is a single axes that is not part of a grid and cannot be divided.
    """
    caller, n_axes = f"{type(display).__name__}.plot", math.prod(shape)
    plt = pyplot(caller)
    if ax is None:
        return plt.subplots(*shape, figsize=size, squeeze=False, layout="compressed" if images else "constrained")[1]
    if isinstance(ax, plt.Axes) and n_axes > 1:
        spec = ax.get_subplotspec()
        if spec is None:
            raise ValueError(
                f"ax is not part of a grid, so it cannot be divided into {shape[0]} rows of {shape[1]} axes. Pass axes "
                f"created by plt.subplots, or an array of {n_axes} axes."
            )
        ax.set_axis_off()
        ax = [ax.figure.add_subplot(cell) for cell in spec.subgridspec(*shape)]
    axes = np.asarray(ax, dtype=object)
    if axes.size != n_axes:
        raise ValueError(
            f"ax has {axes.size} axes, but {caller} needs {n_axes}: {shape[0]} rows of {shape[1]}. Pass "
            f"plt.subplots({shape[0]}, {shape[1]})[1], a single axes that can be divided, or None."
        )
    return axes.reshape(shape)


def check_count(name: str, value: Any) -> None:
    """Raise a ValueError if the parameter with this name is not an integer of at least 1."""
    if not isinstance(value, Integral) or value < 1:
        raise ValueError(f"{name}={value!r} must be an integer of at least 1.")


def integers(values: Any, low: int, high: float = math.inf) -> list[int]:
    """Return one or several integers as a list, which is empty if any value is not an integer from low to high."""
    listed: list[Any] = list(values) if np.iterable(values) else [values]
    valid = all(isinstance(value, Integral) and low <= int(value) <= high for value in listed)
    return [int(value) for value in listed] if valid else []


def selected_codes(components: Any, n_components: int, two: bool = False) -> list[int]:
    """Validate indices of codes, which must be two different ones if ``two`` is True, and return them as a list."""
    codes = integers(components, 0, n_components - 1)
    if not codes or (two and not len(codes) == len(set(codes)) == 2):
        raise ValueError(
            f"components={components!r} must be {'two different ' if two else ''}integers from 0 to "
            f"{n_components - 1}: the autoencoder has n_components={n_components}."
        )
    return codes


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
    is_auto = isinstance(image_shape, str) and image_shape == "auto"
    shape = input_shape if is_auto else image_shape
    if shape is None or (is_auto and np.size(shape) == 2):  # channels and length of series
        return None
    sides = tuple(int(side) for side in shape) if np.ndim(shape) == 1 else ()
    if len(sides) > 1 and sides[:-2] in ((), (1,), (3,)) and min(sides) > 0 and math.prod(sides) == n_features:
        return sides[-2:] if sides[:-2] == (1,) else sides
    if is_auto:
        return None
    raise ValueError(
        f"image_shape={image_shape!r} must be 'auto', None, (height, width) or (channels, height, width) with 1 or "
        f"3 channels and a product of {n_features}, the number of features."
    )


def as_images(samples: ArrayLike, sides: tuple[int, ...]) -> NDArray:
    """Reshape samples to images, with the color channels last as matplotlib expects."""
    images = np.reshape(samples, (*np.shape(samples)[:-1], *sides))
    return np.moveaxis(images, -3, -1) if len(sides) == 3 else images


def show_image(ax: Any, image: NDArray, limits: tuple[float, float], cmap: Any, **options: Any) -> Any:
    """Draw an image without ticks, with its values scaled from the limits to 0 and 1; NaN is transparent.

    Parameters
    ----------
    ax : matplotlib Axes
        Axes to draw on.
    image : ndarray of shape (height, width) or (height, width, 3)
        The values.
    limits : tuple of float
        Values at the ends of the colormap or of the channels. Values beyond are clipped.
    cmap : str or matplotlib Colormap
        Colormap of images with one channel.
    **options : dict
        Passed to ``ax.imshow``.

    Returns
    -------
    matplotlib AxesImage
        The image.
    """
    low, high = limits
    if image.ndim == 3:
        shown = ~np.isnan(image[..., :1])
        image = np.clip((image - low) / ((high - low) or 1.0), 0.0, 1.0)
        image = image if shown.all() else np.concatenate([np.nan_to_num(image), shown], axis=2)
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_color("0.8")
    return ax.imshow(image, cmap=cmap, vmin=low, vmax=high, interpolation="nearest", **options)


def label_row(ax: Any, text: str) -> None:
    """Write a horizontal label beside the first axes of a row."""
    ax.set_ylabel(text, rotation=0, ha="right", va="center", labelpad=8)
