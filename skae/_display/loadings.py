"""The picture of which features drive which code, and which features a code drives."""

from numbers import Integral

import numpy as np
import torch
from sklearn.utils import _safe_indexing
from sklearn.utils.validation import _num_samples

from skae._data.validation import validated_samples
from skae._display.canvas import as_images, axes_grid, label_row, pyplot, resolved_image_shape, without_ticks
from skae._display.fitted import fitted_parts
from skae._network.projection import average_jacobian, decoder_jacobians, encoder_jacobians
from skae._utils import aligned_tensor

AVERAGES = ("mean", "rms")
STEPS = ("spread", "unit")
# Signs want two colours and zero between them; sizes want one that grows.
COLOUR_MAPS = {"mean": "RdBu_r", "rms": "viridis"}
# Up to this many features and codes have their names at the axis.
MOST_NAMES = 40
# Inches of one image or cell, and the widest figure.
IMAGE_SIDE, CELL_HEIGHT, CELL_WIDTH, WIDEST = 1.2, 0.22, 0.45, 16.0


class LatentLoadingsDisplay:
    """Which features drive which code, and which features each code drives.

    Derivatives of the codes by the features, and of the reconstruction by the codes, averaged over rows. It is
    recommended to create one by `from_estimator`. All parameters are stored as attributes.

    Parameters
    ----------
    encoder : ndarray of shape (n_features, n_components)
        What a step in each feature does to each code.
    decoder : ndarray of shape (n_features, n_components)
        What a step in each code does to the reconstruction of each feature.
    average : {"mean", "rms"}, default="mean"
        How rows were averaged.
    components : sequence of int, default=None
        Which codes these are. None is all from 0 on.
    feature_names : sequence of str, default=None
        Names of the features; None numbers them.
    image_shape : tuple of int or None, default=None
        Height and width of the images that rows are, behind a 3 for colours. None draws heat maps.

    Attributes
    ----------
    artists_ : dict of str to list of matplotlib AxesImage
        The heat map, or the image of each code, of "encoder" and "decoder".
    colorbars_ : list of matplotlib Colorbar
        Of encoder and decoder.
    axes_ : ndarray of matplotlib Axes
        Of shape (1, 2) for heat maps, (2, n_components) for images.
    figure_ : matplotlib Figure
        Where the axes are.

    See Also
    --------
    LatentDisplay : The codes themselves.
    sklearn.inspection.PartialDependenceDisplay : The effect of one feature on a prediction.

    Notes
    -----
    A mean shows signs, but effects of different signs in different rows cancel; of two or three codes of curved data
    more than half of them may. The root of the mean square, "rms", shows how strong an effect is and no sign. Where the
    mean is far smaller, the effect of the feature depends on the others.

    With steps of one, encoder and decoder of a linear autoencoder are both PCA's ``components_``, but features that
    hardly vary may seem to drive codes, and features in different units cannot be compared. With steps of one standard
    deviation, features count by what they do on the rows at hand. What a code does to features is in their units.

    Of images with three channels the mean over the channels is drawn.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from skae import AutoEncoderTransformer, LatentLoadingsDisplay
    >>> X = load_diabetes(as_frame=True).data
    >>> autoencoder = AutoEncoderTransformer(3, max_epochs=5, random_state=0).fit(X)
    >>> display = LatentLoadingsDisplay.from_estimator(autoencoder, X)
    >>> display.encoder.shape, display.axes_[0, 0].get_yticklabels()[2].get_text()
    ((10, 3), 'bmi')
    """

    def __init__(self, *, encoder, decoder, average="mean", components=None, feature_names=None, image_shape=None):
        self.encoder = encoder
        self.decoder = decoder
        self.average = average
        self.components = components
        self.feature_names = feature_names
        self.image_shape = image_shape

    @classmethod
    def from_estimator(
        cls,
        estimator,
        X,
        *,
        average="mean",
        step="spread",
        components=None,
        image_shape="auto",
        feature_names=None,
        n_samples=256,
        ax=None,
        cmap=None,
    ):
        """Average derivatives over rows of X, and draw them.

        Parameters
        ----------
        estimator : AutoEncoderTransformer or Pipeline
            Fitted; a pipeline ends with the autoencoder, and features are what the steps before hand to it.
        X : {array-like, sparse matrix or array} of shape (n_samples, n_features)
            Samples in the units of the training rows. Samples far beyond those do not count in the derivatives of the codes,
            which are found by a search there.
        average : {"mean", "rms"}, default="mean"
            "mean" keeps signs, which may cancel; "rms", the root of the mean square, does neither.
        step : {"spread", "unit"}, default="spread"
            How large the steps are whose effects are drawn: one standard deviation over the rows, or one.
        components : sequence of int, default=None
            Which codes to draw; None draws all.
        image_shape : "auto", tuple of int or None, default="auto"
            Height and width of the images that rows are, behind a 1 or 3 for channels. None draws heat maps. "auto" is
            the estimator's ``input_shape``.
        feature_names : sequence of str, default=None
            Names of the features. None takes those that the autoencoder or the step before it knows.
        n_samples : int, default=256
            Samples to average over at most, evenly spaced in X.
        ax : matplotlib Axes or array of Axes, default=None
            Where to draw: one axes that is divided, or as many as are needed; None makes a new figure.
        cmap : str or matplotlib Colormap, default=None
            None is a map from blue over white to red for means, and one from dark to bright for "rms".

        Returns
        -------
        LatentLoadingsDisplay
            The picture and its data.

        Raises
        ------
        ValueError
            If a parameter is not as described, X does not have the estimator's features, or no row is near the
            training rows.
        TypeError
            If there is no autoencoder.
        ImportError
            If matplotlib is not installed.
        """
        pyplot(f"{cls.__name__}.from_estimator")
        fitted = fitted_parts(estimator)
        autoencoder = fitted.autoencoder
        n_features, n_codes = autoencoder.n_features_in_, autoencoder.n_components_
        if average not in AVERAGES:
            raise ValueError(f"average={average!r} must be 'mean' or 'rms'.")
        if step not in STEPS:
            raise ValueError(f"step={step!r} must be 'spread' or 'unit'.")
        if not isinstance(n_samples, Integral) or n_samples < 1:
            raise ValueError(f"n_samples={n_samples!r} must be an integer of at least 1.")
        chosen = _codes_to_draw(components, n_codes)
        names = fitted.feature_names() if feature_names is None else feature_names
        if names is not None and len(names) != n_features:
            raise ValueError(f"feature_names holds {len(names)} names, but there are {n_features} features.")
        rows = np.unique(np.linspace(0, _num_samples(X) - 1, n_samples).round().astype(int))
        loadings = _loadings(autoencoder, fitted.inputs(_safe_indexing(X, rows)), average == "mean", step)
        return cls(
            encoder=loadings[0][:, chosen],
            decoder=loadings[1][:, chosen],
            average=average,
            components=chosen,
            feature_names=names,
            image_shape=resolved_image_shape(image_shape, autoencoder.input_shape, n_features),
        ).plot(ax=ax, cmap=cmap)

    def plot(self, ax=None, *, cmap=None):
        """Draw.

        Parameters
        ----------
        ax : matplotlib Axes or array of Axes, default=None
            Where to draw: one axes that is divided, or as many as are needed; None makes a new figure.
        cmap : str or matplotlib Colormap, default=None
            None is a map from blue over white to red for means, and one from dark to bright for "rms".

        Returns
        -------
        LatentLoadingsDisplay
            The display itself.

        Raises
        ------
        ValueError
            If ``ax`` is not as described.
        ImportError
            If matplotlib is not installed.
        """
        caller = f"{type(self).__name__}.plot"
        n_features, n_codes = self.encoder.shape
        cmap = COLOUR_MAPS[self.average] if cmap is None else cmap
        if self.image_shape is None:
            rows = min(n_features, MOST_NAMES)
            size = min(2 * (CELL_WIDTH * n_codes + 1.4) + 1.0, WIDEST), CELL_HEIGHT * rows + 1.2
            self.axes_ = axes_grid(caller, ax, (1, 2), size, layout="constrained")
            self._plot_heat_maps(cmap)
        else:
            size = min(IMAGE_SIDE * n_codes + 1.8, WIDEST), 2 * IMAGE_SIDE + 0.6
            self.axes_ = axes_grid(caller, ax, (2, n_codes), size)
            self._plot_images(cmap)
        self.figure_ = self.axes_.flat[0].figure
        return self

    def _code_names(self):
        """How the codes are called."""
        return [f"code {code}" for code in (self.components or range(self.encoder.shape[1]))]

    def _limits(self, values):
        """Ends of the colours: zero in the middle of what has signs, at the end of what has none."""
        largest = float(np.abs(values).max()) or 1.0
        return {"vmin": -largest if self.average == "mean" else 0.0, "vmax": largest}

    def _plot_heat_maps(self, cmap):
        """Features down, codes across; the encoder on the left."""
        self.artists_, self.colorbars_ = {}, []
        for name, ax in zip(("encoder", "decoder"), self.axes_[0], strict=True):
            values = getattr(self, name)
            image = ax.imshow(values, cmap=cmap, aspect="auto", interpolation="nearest", **self._limits(values))
            self.artists_[name] = [image]
            self.colorbars_.append(ax.figure.colorbar(image, ax=ax, aspect=30, label=_meaning(name)))
            ax.set_title(name, fontsize="medium")
            if values.shape[1] <= MOST_NAMES:
                ax.set_xticks(range(values.shape[1]), self._code_names(), rotation=90)
            if name == "decoder":
                ax.tick_params(labelleft=False)
            elif len(values) <= MOST_NAMES:
                names = range(len(values)) if self.feature_names is None else self.feature_names
                ax.set_yticks(range(len(values)), [str(one) for one in names])
            if name == "encoder" and self.feature_names is None:
                ax.set_ylabel("feature")

    def _plot_images(self, cmap):
        """One image for each code, the encoder's above."""
        self.artists_, self.colorbars_ = {}, []
        for name, axes in zip(("encoder", "decoder"), self.axes_, strict=True):
            images = as_images(getattr(self, name).T, self.image_shape)
            images = images.mean(axis=-1) if images.ndim == 4 else images
            style = {"cmap": cmap, "interpolation": "nearest", **self._limits(images)}
            self.artists_[name] = [ax.imshow(image, **style) for ax, image in zip(axes, images, strict=True)]
            for ax in axes:
                without_ticks(ax)
            label_row(axes[0], name)
            self.colorbars_.append(axes[0].figure.colorbar(self.artists_[name][0], ax=list(axes), label=_meaning(name)))
        for ax, title in zip(self.axes_[0], self._code_names(), strict=True):
            ax.set_title(title, fontsize="medium")


def _meaning(name):
    """What the colours of encoder and decoder mean."""
    return "step in code" if name == "encoder" else "step in feature"


def _codes_to_draw(components, n_components):
    """A list of codes that there are."""
    if components is None:
        return list(range(n_components))
    chosen = list(components) if np.iterable(components) else [components]
    if not chosen or not all(isinstance(code, Integral) and 0 <= code < n_components for code in chosen):
        raise ValueError(
            f"components={components!r} must hold whole numbers from 0 to {n_components - 1}: the autoencoder has "
            f"n_components={n_components}."
        )
    return [int(code) for code in chosen]


def _loadings(autoencoder, X, signed, step):
    """Average effects of encoder and decoder, of shape (2, n_features, n_components), in units of the data."""
    module, rows = autoencoder.net_.module_, validated_samples(autoencoder, X, "transform")
    network, n_features = module.network, autoencoder.n_features_in_
    with torch.no_grad():
        x = module.standardized(aligned_tensor(rows[:]).to(module.mean))
        codes, smooth = network.encode(x), network.smooth_codes(x)
        near = (codes == smooth).all(dim=1)
        if step == "spread" and len(x) < 2:
            raise ValueError("step='spread' needs at least 2 rows, but X has 1. Pass more rows, or step='unit'.")
        if not near.any():
            raise ValueError(
                f"None of the {len(x)} rows is near the training rows: their codes are found by a search and have no "
                "derivatives. Pass rows like the training rows."
            )
        encoder = average_jacobian(encoder_jacobians, network.smooth_codes, x[near], codes.shape[1], signed)
        decoder = average_jacobian(decoder_jacobians, network.decode, codes, n_features, signed)
        unit = module.code_unit / module.scale
        if step == "unit":
            encoder, decoder = encoder * unit, decoder / unit
        else:
            encoder = encoder * x.std(dim=0, correction=0)[:, None] * module.code_unit
            decoder = decoder * codes.std(dim=0, correction=0) * module.scale
        return np.stack([encoder.cpu().numpy(), decoder.cpu().numpy()])
