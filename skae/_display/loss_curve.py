"""The picture of a training: its losses epoch by epoch, PCA's, and the epoch that was kept."""

import numpy as np

from skae._display.canvas import COLOURS, one_axes, pyplot
from skae._display.fitted import fitted_parts, has_pca

# From this ratio of the largest to the smallest loss on, their axis is logarithmic.
WIDE = 5.0


class LossCurveDisplay:
    """Losses of a training, epoch by epoch.

    It is recommended to create one by `from_estimator`. All parameters are stored as attributes. All losses are shares
    of what the mean of the rows loses, so 1 is as good as nothing learnt, and the squared error's are shares of the
    variance that is left.

    Parameters
    ----------
    train_losses : array-like of shape (n_epochs,)
        Training loss of each epoch, noise and regularizers included: it may be above the held-out rows' loss.
    valid_losses : array-like of shape (n_epochs + 1,) or None, default=None
        Loss of the held-out rows, at the start and after each epoch.
    best_epoch : int, default=0
        The epoch that was kept; 0 is the start.
    start_name : str or None, default=None
        What training started at, if its loss is to be drawn as a level.

    Attributes
    ----------
    train_line_ : matplotlib Line2D
        The training loss.
    valid_line_ : matplotlib Line2D or None
        The loss of the held-out rows.
    start_line_ : matplotlib Line2D or None
        The level of the start.
    best_line_ : matplotlib Line2D
        Upright at the epoch that was kept.
    ax_ : matplotlib Axes
        Where they are.
    figure_ : matplotlib Figure
        Where the axes are.

    See Also
    --------
    BottleneckDisplay : Scores over the size of the bottleneck.
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

    def __init__(self, *, train_losses, valid_losses=None, best_epoch=0, start_name=None):
        self.train_losses = train_losses
        self.valid_losses = valid_losses
        self.best_epoch = best_epoch
        self.start_name = start_name

    @classmethod
    def from_estimator(cls, estimator, *, ax=None):
        """Draw the losses of a fitted autoencoder's training.

        Parameters
        ----------
        estimator : AutoEncoderTransformer or Pipeline
            Fitted; a pipeline ends with the autoencoder.
        ax : matplotlib Axes, default=None
            Where to draw; None makes a new figure.

        Returns
        -------
        LossCurveDisplay
            The picture and its data.

        Raises
        ------
        ValueError
            If there was no training.
        TypeError
            If there is no autoencoder.
        ImportError
            If matplotlib is not installed.
        """
        pyplot(f"{cls.__name__}.from_estimator")
        autoencoder = fitted_parts(estimator).autoencoder
        if not autoencoder.loss_curve_:
            raise ValueError(
                f"{type(autoencoder).__name__} has an empty loss_curve_: it is its start, without an epoch of "
                "training, so there is no curve to draw. That is so with max_epochs=0 (given: "
                f"{autoencoder.max_epochs}), where activation='identity' makes it PCA, where PCA leaves nothing to "
                "learn, and where too few rows carry the variance."
            )
        scores = autoencoder.validation_scores_
        # A warm start goes on from the fit before, so what it began with need not be PCA.
        start_name = "start" if autoencoder.warm_start else "PCA"
        return cls(
            train_losses=np.asarray(autoencoder.loss_curve_),
            valid_losses=None if scores is None else 1.0 - np.asarray(scores),
            best_epoch=autoencoder.best_epoch_,
            start_name=start_name if has_pca(autoencoder) and scores is not None else None,
        ).plot(ax=ax)

    def plot(self, ax=None):
        """Draw.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; None makes a new figure.

        Returns
        -------
        LossCurveDisplay
            The display itself.

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        """
        ax = one_axes(f"{type(self).__name__}.plot", ax)
        self.ax_, self.figure_ = ax, ax.figure
        losses = np.asarray(self.train_losses)
        epochs = np.arange(1, len(losses) + 1)
        (self.train_line_,) = ax.plot(epochs, losses, color="0.55", linewidth=1.2, label="training rows")
        self.valid_line_ = self.start_line_ = None
        if self.valid_losses is not None:
            valid = np.asarray(self.valid_losses)
            style = {"color": COLOURS["autoencoder"], "marker": "o", "markevery": [self.best_epoch]}
            (self.valid_line_,) = ax.plot(np.arange(len(valid)), valid, label="held-out rows", **style)
            if self.start_name is not None:
                style = {"color": COLOURS["PCA"], "linestyle": "--", "label": f"{self.start_name}, held-out rows"}
                self.start_line_ = ax.axhline(valid[0], **style)
            losses = np.append(losses, valid)
        label = f"kept: epoch {self.best_epoch}" if self.best_epoch else "kept: the start"
        self.best_line_ = ax.axvline(self.best_epoch, color=COLOURS["kept"], linestyle=":", label=label)
        if losses.min() > 0 and losses.max() > WIDE * losses.min():
            ax.set_yscale("log")
        ax.set(xlabel="epoch", ylabel="loss, as a share of the mean's")
        ax.legend()
        return self
