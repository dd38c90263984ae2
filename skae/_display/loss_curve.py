"""Plot of the losses by epoch, the loss of PCA and the best epoch."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from skae._display import canvas, fitted

# The axis is logarithmic if the ratio of the largest to the smallest loss is above this value. Chosen by reasoning.
MIN_LOG_RATIO = 5.0


@dataclass(kw_only=True, eq=False, repr=False)
class LossCurveDisplay:
    """Training and validation losses of a fitted autoencoder by epoch.

    It is recommended to create a display with `from_estimator`. All parameters are stored as attributes. Losses are
    divided by the loss of a constant reconstruction by the mean, so 1 is the loss of a network that has learned
    nothing. For the squared error this is the fraction of the variance that is not explained.

    Parameters
    ----------
    train_losses : array-like of shape (n_epochs,)
        Training loss of each epoch. It includes noise and regularization, so it may be above the validation loss.
    valid_losses : array-like of shape (n_comparisons,) or None, default=None
        Loss of the held-out samples at initialization and at each comparison.
    valid_epochs : array-like of shape (n_comparisons,) or None, default=None
        Number of epochs before each of these. None is one epoch between two comparisons.
    best_epoch : int, default=0
        The epoch whose network was selected; 0 is the initialization.
    start_name : str or None, default=None
        Name of the initialization, whose validation loss is drawn as a horizontal line. None does not draw it.

    Attributes
    ----------
    train_line_ : matplotlib Line2D
        The training loss.
    valid_line_ : matplotlib Line2D or None
        The validation loss.
    start_line_ : matplotlib Line2D or None
        Horizontal line at the validation loss of the initialization.
    best_line_ : matplotlib Line2D
        Vertical line at the best epoch.
    ax_ : matplotlib Axes
        The axes with the plot.
    figure_ : matplotlib Figure
        The figure that contains the axes.

    See Also
    --------
    BottleneckDisplay : Scores as a function of the number of components.
    AutoEncoderTransformer : Has ``loss_curve_``, ``validation_scores_`` and ``best_epoch_``.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skae import AutoEncoderTransformer, LossCurveDisplay
    >>> autoencoder = AutoEncoderTransformer(4, max_epochs=5, random_state=0).fit(load_digits().data[:300])
    >>> display = LossCurveDisplay.from_estimator(autoencoder)
    >>> display.ax_.get_xlabel()
    'epoch'
    """

    train_losses: ArrayLike
    valid_losses: ArrayLike | None = None
    valid_epochs: ArrayLike | None = None
    best_epoch: int = 0
    start_name: str | None = None

    @classmethod
    def from_estimator(cls, estimator: Any, *, ax: Any = None) -> "LossCurveDisplay":
        """Draw the losses of a fitted autoencoder.

        Parameters
        ----------
        estimator : AutoEncoderTransformer or Pipeline
            Fitted autoencoder, or fitted pipeline whose last step is an autoencoder.
        ax : matplotlib Axes, default=None
            Axes to draw on. None creates a new figure.

        Returns
        -------
        LossCurveDisplay
            The display, which stores the data of the plot.

        Raises
        ------
        ValueError
            If the autoencoder was fitted without an epoch of training.
        TypeError
            If ``estimator`` is neither an AutoEncoderTransformer nor a Pipeline that ends with one.
        ImportError
            If matplotlib is not installed.
        """
        canvas.pyplot(f"{cls.__name__}.from_estimator")
        _, autoencoder = fitted.parts(estimator)
        if not autoencoder.loss_curve_:
            raise ValueError(
                f"{type(autoencoder).__name__} has an empty loss_curve_: it was not trained, so there is no curve to "
                f"draw. There is no training with max_epochs=0 (given: {autoencoder.max_epochs}), with "
                "activation='identity', which makes it PCA, if PCA explains all the variance, or if too few samples "
                "carry the variance."
            )
        scores = autoencoder.validation_scores_
        # With warm_start, training continues from the previous fit, so the initialization need not be PCA.
        start_name = "initialization" if autoencoder.warm_start else "PCA"
        return cls(
            train_losses=np.asarray(autoencoder.loss_curve_),
            valid_losses=None if scores is None else 1.0 - np.asarray(scores),
            valid_epochs=autoencoder.validation_epochs_,
            best_epoch=autoencoder.best_epoch_,
            start_name=start_name if fitted.has_pca(autoencoder) and scores is not None else None,
        ).plot(ax=ax)

    def plot(self, ax: Any = None) -> "LossCurveDisplay":
        """Draw the plot.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to draw on. None creates a new figure.

        Returns
        -------
        LossCurveDisplay
            The display.

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        """
        ax, colors = canvas.axes_grid(self, ax)[0, 0], canvas.COLORS
        self.ax_, self.figure_ = ax, ax.figure
        losses = np.asarray(self.train_losses)
        epochs = np.arange(1, len(losses) + 1)
        (self.train_line_,) = ax.plot(epochs, losses, color="0.55", linewidth=1.2, label="training samples")
        self.valid_line_ = self.start_line_ = None
        if self.valid_losses is not None:
            valid = np.asarray(self.valid_losses)
            at = np.arange(len(valid)) if self.valid_epochs is None else np.asarray(self.valid_epochs)
            (self.valid_line_,) = ax.plot(at, valid, "o-", color=colors["autoencoder"], label="held-out samples")
            if self.start_name is not None:
                label = f"{self.start_name}, held-out samples"
                self.start_line_ = ax.axhline(valid[0], color=colors["PCA"], linestyle="--", label=label)
            losses = np.append(losses, valid)
        label = f"best epoch: {self.best_epoch}" if self.best_epoch else "best epoch: 0 (initialization)"
        self.best_line_ = ax.axvline(self.best_epoch, color=colors["best"], linestyle=":", label=label)
        if losses.min() > 0 and losses.max() > MIN_LOG_RATIO * losses.min():
            ax.set_yscale("log")
        ax.set(xlabel="epoch", ylabel="loss relative to the mean")
        ax.legend()
        return self
