"""The picture of what an autoencoder and PCA make of rows."""

import math
from numbers import Integral

import numpy as np

from skae._display.canvas import COLOURS, as_images, axes_grid, label_row, pyplot, resolved_image_shape, show_image
from skae._display.fitted import (
    dense,
    first_samples,
    fitted_parts,
    has_pca,
    pca_baseline,
    pca_rows,
    pca_score,
    reconstructed,
)

PROFILE_COLUMNS = 4
# Inches of one image or profile.
IMAGE_SIDE = 1.0
PROFILE_SIDES = (2.6, 1.8)


class ReconstructionDisplay:
    """Samples, and what comes back of them from an autoencoder and from PCA with as many numbers.

    It is recommended to create one by `from_estimator`. All parameters are stored as attributes.

    Parameters
    ----------
    rows : dict of str to ndarray of shape (n_samples, n_features)
        What to draw, by name, the originals first.
    image_shape : tuple of int or None, default=None
        Height and width of the images that rows are, behind a 3 for colours. None draws rows as lines over the
        features.
    scores : dict of str to float, default=None
        Share of the variance explained, by name, for the labels.

    Attributes
    ----------
    axes_ : ndarray of matplotlib Axes
        Of shape (n_kinds, n_samples) for images: originals above reconstructions. For profiles as many as there are
        rows, up to four beside each other.
    artists_ : dict of str to list
        The image or line of each row, by name.
    figure_ : matplotlib Figure
        Where the axes are.

    See Also
    --------
    LatentDisplay : The codes, and what the decoder makes of a grid of them.
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

    def __init__(self, *, rows, image_shape=None, scores=None):
        self.rows = rows
        self.image_shape = image_shape
        self.scores = scores

    @classmethod
    def from_estimator(cls, estimator, X, *, n_samples=8, image_shape="auto", X_train=None, ax=None, cmap="gray"):
        """Draw the first rows of X and their reconstructions.

        Parameters
        ----------
        estimator : AutoEncoderTransformer or Pipeline
            Fitted; a pipeline ends with the autoencoder. Images are in the units of X if the steps before can be
            undone; otherwise everything is drawn as the autoencoder is handed it.
        X : {array-like, sparse matrix or array} of shape (n_samples, n_features)
            Samples in the units of the training rows; all of them count in the shares of variance.
        n_samples : int, default=8
            How many rows to draw.
        image_shape : "auto", tuple of int or None, default="auto"
            Height and width of the images that rows are, behind a 1 or 3 for channels. None draws lines over the
            features. "auto" is the estimator's ``input_shape``.
        X_train : {array-like, sparse matrix or array} of shape (n_train, n_features), default=None
            Samples to fit PCA on. None takes the PCA that the autoencoder started at; with ``linear_skip=False`` there
            is none, and it is left out.
        ax : matplotlib Axes or array of Axes, default=None
            Where to draw: one axes that is divided, or as many as are needed; None makes a new figure.
        cmap : str or matplotlib Colormap, default="gray"
            Colours of images with one channel.

        Returns
        -------
        ReconstructionDisplay
            The picture and its data.

        Raises
        ------
        ValueError
            If ``n_samples``, ``image_shape`` or ``ax`` is not as described, or X does not have the estimator's features.
        TypeError
            If there is no autoencoder.
        ImportError
            If matplotlib is not installed.
        """
        pyplot(f"{cls.__name__}.from_estimator")
        fitted = fitted_parts(estimator)
        if not isinstance(n_samples, Integral) or n_samples < 1:
            raise ValueError(f"n_samples={n_samples!r} must be an integer of at least 1.")
        autoencoder, inputs, some = fitted.autoencoder, fitted.inputs(X), first_samples(X, n_samples)
        seen = first_samples(inputs, n_samples)
        rows = {"autoencoder": reconstructed(autoencoder, seen)}
        scores = {"autoencoder": autoencoder.score(inputs)}
        if X_train is not None:
            pca = pca_baseline(autoencoder).fit(fitted.inputs(X_train))
            rows["PCA"], scores["PCA"] = reconstructed(pca, seen), pca.score(inputs)
        elif has_pca(autoencoder):
            rows["PCA"], scores["PCA"] = pca_rows(autoencoder, seen), pca_score(autoencoder, inputs)
        undoes = fitted.undoes(some)
        original = dense(some if undoes else seen)
        sides = resolved_image_shape(image_shape, autoencoder.input_shape, original.shape[1])
        if sides is None:
            # Columns of different units share an axis only as the autoencoder sees them.
            rows = {"original": dense(seen), **rows}
        else:
            rows = {"original": original, **{key: fitted.undone(rows[key]) if undoes else rows[key] for key in rows}}
        return cls(rows=rows, image_shape=sides, scores=scores).plot(ax=ax, cmap=cmap)

    def plot(self, ax=None, *, cmap="gray"):
        """Draw.

        Parameters
        ----------
        ax : matplotlib Axes or array of Axes, default=None
            Where to draw: one axes that is divided, or as many as are needed; None makes a new figure.
        cmap : str or matplotlib Colormap, default="gray"
            Colours of images with one channel.

        Returns
        -------
        ReconstructionDisplay
            The display itself.

        Raises
        ------
        ValueError
            If ``ax`` is not as described.
        ImportError
            If matplotlib is not installed.
        """
        if self.image_shape is None:
            self._plot_profiles(ax)
        else:
            self._plot_images(ax, cmap)
        self.figure_ = self.axes_.flat[0].figure
        return self

    def _label(self, name, separator):
        """A name, and how much of the variance it explains."""
        share = (self.scores or {}).get(name)
        return name if share is None else f"{name}{separator}{share:.1%} explained"

    def _plot_images(self, ax, cmap):
        """One row of images for each kind."""
        originals = next(iter(self.rows.values()))
        shape = len(self.rows), len(originals)
        size = IMAGE_SIDE * shape[1] + 1.4, IMAGE_SIDE * shape[0] + 0.2
        self.axes_ = axes_grid(f"{type(self).__name__}.plot", ax, shape, size)
        limits = np.nanmin(originals), np.nanmax(originals)
        self.artists_ = {}
        for (name, values), axes in zip(self.rows.items(), self.axes_, strict=True):
            images = as_images(values, self.image_shape)
            pairs = zip(axes, images, strict=True)
            self.artists_[name] = [show_image(one, image, limits, cmap) for one, image in pairs]
            label_row(axes[0], self._label(name, "\n"))

    def _plot_profiles(self, ax):
        """One axes for each row, with a line for each kind."""
        n_samples = len(next(iter(self.rows.values())))
        n_features = min(n_samples, PROFILE_COLUMNS)
        shape = math.ceil(n_samples / n_features), n_features
        size = PROFILE_SIDES[0] * shape[1], PROFILE_SIDES[1] * shape[0] + 0.6
        self.axes_ = axes_grid(f"{type(self).__name__}.plot", ax, shape, size, layout="constrained")
        self.artists_ = {name: [] for name in self.rows}
        for index, one in enumerate(self.axes_.flat):
            one.set_visible(index < n_samples)
            for name, values in self.rows.items():
                if index < n_samples:
                    style = {"color": COLOURS[name], "linewidth": 2.5 if name == "original" else 1.2}
                    style["alpha"] = 0.3 if name == "original" else 1.0
                    self.artists_[name] += one.plot(values[index], label=self._label(name, ", "), **style)
        for one in self.axes_[:, 0]:
            one.set_ylabel("value")
        for one in self.axes_[-1]:
            one.set_xlabel("feature")
        self._name_lines(ax)

    def _name_lines(self, ax):
        """One legend for all profiles, where there is room for it."""
        handles = [lines[0] for lines in self.artists_.values()]
        first = self.axes_.flat[0]
        if ax is None:
            first.figure.legend(handles=handles, loc="outside upper center", ncols=len(handles))
        else:
            # A legend may be larger than its axes, which a layout would then shrink and a neighbour cover.
            first.legend(handles, list(self.artists_), fontsize="x-small").set_in_layout(False)
            first.set_zorder(1)
