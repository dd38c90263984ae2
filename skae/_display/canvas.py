"""Where pictures are drawn: matplotlib if it is there, axes in rows and columns, colours, and rows as images."""

import math

import numpy as np

# Okabe and Ito's colours, which colour-blind people can tell apart.
COLOURS = {"original": "#000000", "autoencoder": "#D55E00", "PCA": "#0072B2", "kept": "#009E73"}
# Ten colours for categories by M. A. Petroff, chosen to be told apart by everybody; beyond ten the marker changes.
CATEGORY_COLOURS = (
    "#3f90da", "#ffa90e", "#bd1f01", "#94a4a2", "#832db6", "#a96b59", "#e76300", "#b9ac70", "#717581", "#92dadd",
)  # fmt: skip
CATEGORY_MARKERS = ("o", "^", "s", "D", "v", "P", "X", "<", ">", "*")


def pyplot(caller):
    """Import matplotlib's pyplot, or say how to get it.

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


def one_axes(caller, ax, size=(6.4, 4.4)):
    """The axes that were handed in, or new ones."""
    plt = pyplot(caller)
    return plt.subplots(figsize=size, layout="constrained")[1] if ax is None else ax


def axes_grid(caller, ax, shape, size, layout="compressed"):
    """Samples and columns of axes: new ones, those handed in, or a division of the one handed in.

    Raises
    ------
    ValueError
        If another number of axes was handed in, or one that belongs to no grid and cannot be divided.
    """
    plt = pyplot(caller)
    if ax is None:
        return plt.subplots(*shape, figsize=size, squeeze=False, layout=layout)[1]
    if isinstance(ax, plt.Axes):
        return _divided(ax, shape)
    axes = np.asarray(ax, dtype=object)
    if axes.size != math.prod(shape):
        raise ValueError(
            f"ax holds {axes.size} axes, but {caller} needs {math.prod(shape)}: {shape[0]} rows of {shape[1]}. Pass "
            f"plt.subplots({shape[0]}, {shape[1]})[1], a single axes to be divided, or None."
        )
    return axes.reshape(shape)


def _divided(ax, shape):
    """Axes in the place of one."""
    if shape == (1, 1):
        return np.array([[ax]], dtype=object)
    place = ax.get_subplotspec()
    if place is None:
        raise ValueError(
            f"ax has no place in a grid, so it cannot be divided into {shape[0]} rows of {shape[1]} axes. Pass one "
            f"that plt.subplots made, or an array of {math.prod(shape)} axes."
        )
    ax.set_axis_off()
    inner = place.subgridspec(*shape)
    return np.array([[ax.figure.add_subplot(inner[i, j]) for j in range(shape[1])] for i in range(shape[0])])


def resolved_image_shape(image_shape, input_shape, n_features):
    """Height and width of the images that rows are, behind a 3 for colours; None where rows are none.

    Raises
    ------
    ValueError
        If the shape is none of an image, or does not multiply to the number of features.
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


def _without_one_channel(shape):
    """Sides as integers, a single channel dropped."""
    sides = tuple(int(side) for side in shape)
    return sides[1:] if len(sides) == 3 and sides[0] == 1 else sides


def _is_image(sides):
    """Whether these are height and width, or three channels, height and width."""
    return len(sides) in (2, 3) and min(sides) > 0 and (len(sides) == 2 or sides[0] == 3)


def as_images(rows, sides):
    """Fold rows into images, colours last as matplotlib wants them."""
    images = np.reshape(rows, (*np.shape(rows)[:-1], *sides))
    return np.moveaxis(images, -3, -1) if len(sides) == 3 else images


def show_image(ax, image, limits, cmap):
    """Draw one image without ticks; colours are scaled to the limits as grey values are."""
    if image.ndim == 3:
        image = as_colours(image, limits)
    artist = ax.imshow(image, cmap=cmap, vmin=limits[0], vmax=limits[1], interpolation="nearest")
    without_ticks(ax)
    return artist


def as_colours(image, limits):
    """Scale values between the limits to 0 and 1."""
    low, high = limits
    return np.clip((image - low) / ((high - low) or 1.0), 0.0, 1.0)


def without_ticks(ax):
    """Leave only a faint frame."""
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_color("0.8")


def label_row(ax, text):
    """Write horizontally what a row of axes shows, beside its first."""
    ax.set_ylabel(text, rotation=0, ha="right", va="center", labelpad=8)
