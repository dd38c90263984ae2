"""AutoEncoderTransformer: parameters, validation and public methods."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from numbers import Integral, Real
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import DTypeLike, NDArray
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin, _fit_context
from sklearn.utils import Tags, check_array, check_random_state
from sklearn.utils._param_validation import HasMethods, Interval, RealNotInt, StrOptions
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from skae._data.array_api import asarray_like, check_kind, float_dtypes, is_float64, is_foreign, to_numpy
from skae._data.containers import WrappedSamples, extremes
from skae._data.dataset import apply_in_batches
from skae._data.ranks import ALONE, Ranks
from skae._data.sample import Sample, counted_sample, weighted_sample
from skae._data.validation import (
    check_features,
    check_groups,
    check_imputes,
    check_sample_weight,
    n_present,
    validate_samples,
    validated_samples,
    values_missing,
)
from skae._network.architecture import ACTIVATIONS, Architecture, automatic_sizes
from skae._network.layers import DEFAULT_SIZES, check_images
from skae._network.probe import Demands, check_same, tried_module
from skae._network.projection import DEFAULT_STEPS
from skae._network.scaling import ScaledAutoEncoder
from skae._network.state import NETWORK, OF_PCA, OF_TRANSFORMER, check_transformer, checked, stamped
from skae._objectives.losses import LOSSES, Loss, SquaredError, as_loss
from skae._objectives.regularizer import Regularizer
from skae._objectives.regularizers import REGULARIZERS, Contractive, Nested, as_regularizers, needs_all, needs_y
from skae._training.bottleneck import HeldOutScores, fewest_components, justified_components
from skae._training.fit import NetworkInitializer, TrainingResult, fit_network
from skae._training.journal import Journal
from skae._training.net import (
    BATCH_SIZE,
    ReconstructionNet,
    TrainingConfig,
    check_callbacks,
    net_from_dict,
    net_to_dict,
)
from skae._training.optimizers import OPTIMIZERS, check_optimizer, learning_rate
from skae._training.ordering import ExplainedVariance
from skae._training.partial_fit import STREAM_BATCH, Stream, model_from_dict
from skae._training.progress import CallbackSupportMixin, EpochBar, FitTasks, Progress
from skae._training.selection import ValidationSplit
from skae._utils import (
    Documented,
    FollowedMixin,
    NestedParamsMixin,
    check_dtype_on_device,
    draw_seed,
    gradients_on,
    resolve_device,
    threads_for,
    torch_dtype,
)


def _takes_steps(estimator: Any) -> bool:
    """Return whether the estimator has `partial_fit`."""
    if isinstance(estimator.optimizer, str) and estimator.optimizer == "lbfgs":
        raise AttributeError(
            "partial_fit is not available with optimizer='lbfgs', which takes all samples in each step. Call fit, or "
            "choose another optimizer."
        )
    if needs_all(estimator.regularizer):
        raise AttributeError(
            f"partial_fit is not available with regularizer={estimator.regularizer!r}, which needs all samples at "
            "once. Call fit, or choose another regularizer."
        )
    return True


class AutoEncoderTransformer(
    CallbackSupportMixin,
    NestedParamsMixin,
    FollowedMixin,
    Documented,
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
    BaseEstimator,
):
    """Nonlinear dimensionality reduction by an autoencoder that is initialized from PCA.

    The code of a sample is that of the nearest point of the manifold of the decoder. Encoder and decoder are the sums
    of those of PCA and of a neural network. A network is used only if it reconstructs held-out samples better than PCA.

    Parameters
    ----------
    n_components : int, float, "auto" or None, default=2
        Number of components, which is the size of the bottleneck, at most ``min(n_samples, n_features)``. A float
        between 0 and 1 is the fraction of the variance of held-out samples that the smallest suitable number of
        components explains. "auto" is the largest number such that each component reconstructs held-out samples
        better, by more than noise would. Both take the time of a few fits. None is ``min(n_samples, n_features)``,
        which is only useful for PCA (``activation="identity"``) or with a regularizer.
    hidden_layer_sizes : "auto", int or sequence of int, default="auto"
        Sizes of the hidden layers of the encoder. "auto" is (256, 128), or larger for many components.
    decoder_layer_sizes : "auto", int or sequence of int, default="auto"
        Sizes of the hidden layers of the decoder. "auto" is the reverse of the encoder.
    activation : {"gelu", "relu", "silu", "elu", "tanh", "logistic", "identity"}, default="gelu"
        Activation function of the hidden layers. "identity" is a linear autoencoder; with ``linear_skip=True``, it is
        PCA.
    linear_skip : bool, default=True
        Whether the encoder and the decoder of PCA are added to the networks. False is an autoencoder with random
        initialization, which may have a lower score than PCA.
    loss : str, Loss or callable, default="squared_error"
        Loss function: "squared_error", "absolute_error", "huber", "binary_cross_entropy" for values between 0 and 1,
        "poisson" for counts or "cosine" for embeddings, or an instance of `skae.Loss`. A callable
        ``loss(x_hat, x)``, such as a torch loss with ``reduction="none"``, takes samples in the units of the data and
        returns the loss of each value or sample. Reconstructions are means: probabilities with
        "binary_cross_entropy" and rates with "poisson". PCA is compared by this loss. `skae.ColumnLosses` combines
        losses of different columns.
    regularizer : str, Regularizer, list of these or None, default=None
        Regularization: "denoising", "sparse", "contractive", "variational", "nested", "neighbors" or
        "supervised", which needs y; see `skae.Denoising`, `skae.Sparse`, `skae.Contractive`, `skae.Variational`,
        `skae.Nested`, `skae.Neighbors` and `skae.Supervised`. Except with "nested", networks are then compared by the
        regularized loss, and the score may be lower than that of PCA.
    architecture : {"dense", "tied", "conv"}, default="dense"
        Architecture of the networks. With "tied", the weights of the decoder are those of the encoder, transposed. With
        "conv", the encoder has strided convolutions and a dense layer, and the decoder is its reverse;
        ``hidden_layer_sizes`` are the numbers of channels and the size of the dense layer, by default (32, 64, 256).
    input_shape : tuple of int or None, default=None
        For "conv": channels, height and width of images, or channels and length of series, such as windows of a signal.
    allow_nan : bool, default=False
        Whether X may have missing values, encoded as NaN. They are imputed by probabilistic PCA before the encoder and
        are ignored in losses and scores. Held-out samples are compared by values that are hidden from the encoder.
        ``inverse_transform(transform(X))`` imputes them. A sample without any values is reconstructed as the mean. A
        feature without any values raises an error.
    normalization : {"batch", "layer"} or None, default=None
        Normalization before each activation.
    dropout : float, default=0.0
        Fraction of the hidden units that are set to zero in each training step.
    module : torch.nn.Module class or instance or None, default=None
        Custom network with the methods ``encode`` and ``decode``, which map tensors of shape (n, n_features) to
        (n, n_components) and back. Samples are centered and divided by their overall scale. A class is instantiated
        with the two numbers; an instance is copied. With ``linear_skip=True``, PCA is added to it.
    module_params : dict or None, default=None
        Further arguments for a ``module`` that is a class, such as ``{"width": 64}``.
    alpha : float, default=0.0
        Strength of the L2 regularization of the weights, which is the weight decay of optimizers that have one.
    whiten : bool, default=False
        If False, codes are in units of the data, as with PCA: a unit step of a code moves the reconstruction by one, in
        the root mean square over the training samples. If True, codes have unit variance on the training samples.
    ordered : bool, default=True
        Whether codes are ordered by importance, as those of PCA. The first codes alone, as with `skae.truncate`,
        explain at least the variance of the held-out samples of `fit` that PCA of that size does, or PCA is kept. In
        training, some samples keep only their first codes, at a cost of less than .005 of the variance. In
        `partial_fit`, and with ``linear_skip=False``, a regularizer or more codes than features, the order is not
        compared with PCA. ``regularizer="nested"`` puts more weight on the first codes, and "neighbors" does not order
        codes.
    projection_steps : "auto" or int, default="auto"
        Largest number of steps from the code of the encoder, of PCA or, with up to three codes, of a training sample,
        to that of the nearest point of the decoder's manifold in `transform`. "auto" is 16, of which most samples need
        four to six. With 0, codes are those of the encoder, which takes a fraction of a millisecond for a single
        sample.
    optimizer : {"adam", "adamw", "sgd", "lbfgs"} or torch optimizer class, default="adam"
        Optimizer of the weights. "lbfgs" uses all samples in each step.
    optimizer_params : dict or None, default=None
        Further arguments for the optimizer, such as ``{"momentum": 0.95}`` for "sgd". They override the defaults, which
        are a Nesterov momentum of 0.9 for "sgd" and a line search for "lbfgs", and ``alpha``.
    lr : "auto" or float, default="auto"
        Largest learning rate. In each run, the learning rate first increases to it and then decreases linearly to zero.
        "auto" is 0.025 for dense and 0.003 for other networks, 0.1 for "sgd" and 1 for "lbfgs". A
        `skorch.callbacks.LRScheduler` replaces this schedule. It does not depend on the units of X.
    max_epochs : "auto" or int, default="auto"
        Largest number of passes over the training samples in the search. 0 is PCA. "auto" stands for runs of 300, 300
        and 600 steps for up to 2,000 samples, and more for more samples. With ``early_stopping=False``, it is the exact
        number of epochs, and "auto" is 600 steps.
    batch_size : "auto" or int, default="auto"
        Approximate number of samples per step; all batches have about the same size. "auto" is 256, or all samples if
        there are fewer.
    early_stopping : bool, default=True
        Whether a validation set is split off, by which the number of epochs is selected and PCA is compared with the
        network. If False, all epochs are run, and PCA is kept if it reconstructs the training samples better.
    validation_fraction : float, default=0.1
        Fraction of the samples in the validation set. For few samples, several validation sets are used, each with a
        training of its own. Identical samples, near copies (nearer to each other than a tenth of the usual distance to
        the nearest other sample) and the samples of a group are on one side of the split.
    validation_split : cross-validation splitter, {array-like, sparse matrix} of shape (n_validation, n_features) or \
            None, default=None
        Replaces the random split: a cross-validation splitter such as ``GroupKFold(10)`` or ``PredefinedSplit``, which
        is called with the ``y`` and ``groups`` of `fit` and each split of which has a training of its own; or
        validation samples that are not in X.
    tol : float, default=0.015
        The search ends when a run decreases the loss of the validation samples by less than this fraction of the
        variance.
    warm_start : bool, default=False
        Whether `fit` continues from the fitted network, which is moved to the mean and the scale of X. It is
        initialized from PCA if that reconstructs X better.
    forgetting : float or None, default=None
        Half-life in `partial_fit`, as a number of samples: after as many later ones, the weight of a sample is a half,
        in the principal components, in the samples that are kept, and in the comparison with PCA. Signs of codes stay
        the same. None does not forget.
    callbacks : list of skorch callbacks, default=None
        Callbacks of the first training of the search, as instances, classes or pairs of a name and either of them.
        Callbacks that change the weights are copied for all other trainings: ``LRScheduler``, ``Freezer`` and other
        ``ParamMapper``, ``GradientNormClipping``, and all with a method ``on_grad_computed``.
    device : str or torch.device, default="cpu"
        "cpu", "cuda", "cuda:1", "mps", or "auto" for the fastest available device.
    random_state : int, RandomState instance or None, default=None
        Controls the validation split, weight initialization and shuffling. Pass an int for reproducible results, which
        are identical on the same CPU.
    verbose : int, default=0
        0 is silent. 1 shows a progress bar with the losses, as fractions of the variance, and the best epoch. 2 prints
        a line per epoch.

    Attributes
    ----------
    n_components_ : int
        Number of components.
    mean_ : ndarray of shape (n_features,)
        Mean of each feature of the training samples.
    components_ : ndarray of shape (n_components, n_features)
        Mean derivative of the reconstruction by each code, over up to 256 training samples. Where the network is PCA,
        its principal directions.
    explained_variance_ratio_ : ndarray of shape (n_components,)
        Fraction of the variance that each code explains in addition to the codes before it, when samples are projected
        on the first codes. The sum is the score of the training samples, or of 4,096 of them if the loss is not the
        squared error. Where the network is PCA, that of PCA.
        The fractions are of the variance for any loss; one that does not minimize the squared error, or
        ``ordered=False``, may give negative ones.
    explained_variance_ : ndarray of shape (n_components,)
        The same in squared units of X: these fractions of the variance of all features (divisor n - 1).
    noise_variance_ : float
        Variance that is left, divided by ``min(n_samples, n_features) - n_components``.
    n_samples_ : int
        Number of training samples, with repetitions by integer weights.
    n_iter_ : int
        Number of epochs of the search.
    best_epoch_ : int
        Number of epochs with the lowest validation loss; 0 stands for the initialization, which is PCA with
        ``linear_skip=True``. The tuning on all samples follows.
    loss_curve_ : list of float
        Training loss of each epoch of the search, with regularization, as a fraction of the loss of the mean.
    validation_scores_ : list of float or None
        Score of the validation samples at the initialization and after each run: one minus the fraction of the loss of
        the mean that is left, by codes after three projection steps. None without validation samples.
    validation_epochs_ : list of int
        Number of epochs before each of these.
    device_ : str
        Device of the network.
    net_ : skorch.NeuralNet
        The fitted net. Its module is in evaluation mode.
    n_features_in_ : int
        Number of features seen during `fit`.
    feature_names_in_ : ndarray of shape (n_features,)
        Names of features seen during `fit`. Defined only if X has feature names that are all strings.

    See Also
    --------
    truncate : The first codes of a fitted autoencoder, without training.
    sklearn.decomposition.PCA : Linear dimensionality reduction, from which this is initialized.
    sklearn.decomposition.KernelPCA : Nonlinear dimensionality reduction with kernels and an approximate inverse.
    sklearn.neural_network.MLPRegressor : ``MLPRegressor().fit(X, X)`` is an autoencoder without codes.

    Notes
    -----
    X is centered and scaled internally, so the result does not depend on units or offsets.

    The code of PCA is the least-squares code of a sample, while an encoder only estimates it. `transform` therefore
    moves the code of the encoder, by a few gradient steps, to that of the nearest point of the manifold of the decoder,
    as measured by the loss.

    Training consists of runs, in each of which the learning rate decreases to zero. The number of epochs doubles while
    the loss of the validation samples, after projection, decreases by more than ``tol``. The network is then tuned on
    all samples. PCA is kept if too few samples carry the loss for a comparison, if no run is better than PCA by more
    than two standard errors, or if the network reconstructs all samples worse than PCA.

    References
    ----------
    .. [1] G. E. Hinton, R. R. Salakhutdinov, "Reducing the dimensionality of data with neural networks",
       Science 313 (2006) 504-507. :doi:`10.1126/science.1127647`
    .. [2] P. Baldi, K. Hornik, "Neural networks and principal component analysis: learning from examples
       without local minima", Neural Networks 2 (1989) 53-58. :doi:`10.1016/0893-6080(89)90014-2`

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.decomposition import PCA
    >>> from sklearn.model_selection import train_test_split
    >>> from skae import AutoEncoderTransformer
    >>> train, test = train_test_split(load_digits().data, random_state=0)
    >>> autoencoder = AutoEncoderTransformer(8, random_state=0).fit(train)
    >>> autoencoder.transform(test).shape
    (450, 8)
    >>> pca = AutoEncoderTransformer(8, activation="identity").fit(train)
    >>> bool(autoencoder.score(test) > pca.score(test) + 0.15)
    True
    """

    _parameter_constraints: dict = {
        "n_components": [
            Interval(Integral, 1, None, closed="left"),
            Interval(RealNotInt, 0, 1, closed="neither"),
            StrOptions({"auto"}),
            None,
        ],
        "hidden_layer_sizes": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left"), "array-like"],
        "decoder_layer_sizes": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left"), "array-like", None],
        "activation": [StrOptions(set(ACTIVATIONS))],
        "linear_skip": ["boolean"],
        "loss": [StrOptions(set(LOSSES)), callable],
        "regularizer": [StrOptions(set(REGULARIZERS)), Regularizer, list, tuple, None],
        "architecture": [StrOptions({"dense", "tied", "conv"})],
        "input_shape": ["array-like", None],
        "allow_nan": ["boolean"],
        "normalization": [StrOptions({"batch", "layer"}), None],
        "dropout": [Interval(Real, 0, 1, closed="left")],
        "module": [callable, None],
        "module_params": [dict, None],
        "alpha": [Interval(Real, 0, None, closed="left")],
        "whiten": ["boolean"],
        "ordered": ["boolean"],
        "projection_steps": [StrOptions({"auto"}), Interval(Integral, 0, None, closed="left")],
        "optimizer": [StrOptions(set(OPTIMIZERS)), type],
        "optimizer_params": [dict, None],
        "lr": [StrOptions({"auto"}), Interval(Real, 0, None, closed="neither")],
        "max_epochs": [StrOptions({"auto"}), Interval(Integral, 0, None, closed="left")],
        "batch_size": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left")],
        "early_stopping": ["boolean"],
        "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
        "validation_split": [HasMethods(["split"]), "array-like", "sparse matrix", None],
        "tol": [Interval(Real, 0, None, closed="left")],
        "warm_start": ["boolean"],
        "forgetting": [Interval(Real, 0, None, closed="neither"), None],
        "callbacks": [list, tuple, None],
        "device": [str, torch.device],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        n_components: int | float | str | None = 2,
        *,
        hidden_layer_sizes: str | int | Sequence[int] = "auto",
        decoder_layer_sizes: str | int | Sequence[int] | None = "auto",
        activation: str = "gelu",
        linear_skip: bool = True,
        loss: str | Loss | Callable = "squared_error",
        regularizer: str | Regularizer | Sequence[str | Regularizer] | None = None,
        architecture: str = "dense",
        input_shape: Sequence[int] | None = None,
        allow_nan: bool = False,
        normalization: str | None = None,
        dropout: float = 0.0,
        module: Callable | None = None,
        module_params: dict | None = None,
        alpha: float = 0.0,
        whiten: bool = False,
        ordered: bool = True,
        projection_steps: str | int = "auto",
        optimizer: str | type = "adam",
        optimizer_params: dict | None = None,
        lr: str | float = "auto",
        max_epochs: str | int = "auto",
        batch_size: str | int = "auto",
        early_stopping: bool = True,
        validation_fraction: float = 0.1,
        validation_split: Any = None,
        tol: float = 0.015,
        warm_start: bool = False,
        forgetting: float | None = None,
        callbacks: Sequence | None = None,
        device: str | torch.device = "cpu",
        random_state: int | np.random.RandomState | None = None,
        verbose: int = 0,
    ) -> None:
        self.n_components = n_components
        self.hidden_layer_sizes = hidden_layer_sizes
        self.decoder_layer_sizes = decoder_layer_sizes
        self.activation = activation
        self.linear_skip = linear_skip
        self.loss = loss
        self.regularizer = regularizer
        self.architecture = architecture
        self.input_shape = input_shape
        self.allow_nan = allow_nan
        self.normalization = normalization
        self.dropout = dropout
        self.module = module
        self.module_params = module_params
        self.alpha = alpha
        self.whiten = whiten
        self.ordered = ordered
        self.projection_steps = projection_steps
        self.optimizer = optimizer
        self.optimizer_params = optimizer_params
        self.lr = lr
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.validation_split = validation_split
        self.tol = tol
        self.warm_start = warm_start
        self.forgetting = forgetting
        self.callbacks = callbacks
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Any, y: Any = None, sample_weight: Any = None, groups: Any = None) -> Self:
        """Fit the autoencoder.

        Parameters
        ----------
        X : {array-like, sparse matrix or array} of shape (n_samples, n_features)
            Training samples, at least two. float32 and float64 are kept, other types are converted to float64.
        y : array-like of shape (n_samples,), default=None
            Labels for `skae.Supervised` and for a ``validation_split`` splitter, otherwise ignored.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the samples in PCA, in the loss and in the validation score. Integers are treated as repetitions
            of a sample, up to ten per sample on average; other weights are relative to their mean. Samples with weight
            zero are ignored.
        groups : array-like of shape (n_samples,), default=None
            Group labels, numbers or strings, of samples that are not independent, such as those of one patient. The
            samples of a group are on one side of the validation split, and count as one in standard errors. If None,
            identical samples and near copies are groups.

        Returns
        -------
        AutoEncoderTransformer
            Fitted estimator.

        Raises
        ------
        ValueError
            If a parameter, the device, X or a weight is not as described, if ``n_components`` exceeds
            ``min(n_samples, n_features)``, or if the loss becomes infinite or NaN.
        TypeError
            If ``optimizer`` is a class but not a torch optimizer, or an entry of ``callbacks`` is not a skorch
            callback.
        """
        return self._fit(X, y, sample_weight, groups)

    def _fit(
        self,
        X: Any,
        y: Any = None,
        sample_weight: Any = None,
        groups: Any = None,
        ranks: Ranks = ALONE,
        journal: Journal | None = None,
    ) -> Self:
        """Fit to the samples of all processes, of which this one has X, and keep a record in a journal."""
        journal = Journal() if journal is None else journal
        tasks = FitTasks(self, X, {"sample_weight": sample_weight, "groups": groups})
        with _unchanged_on_failure(self), gradients_on():
            ranks.stage("validation of X")
            device = resolve_device(self.device)
            X = validate_samples(self, X, ensure_min_samples=2 if ranks.size == 1 else 0)
            sample = weighted_sample(to_numpy(X), check_sample_weight(X, sample_weight, ranks), ranks)
            _check(self, sample, device)
            if groups is not None:
                sample = replace(sample, groups=check_groups(X, groups, ranks)[sample.numbers])
            if self.allow_nan:
                check_features(sample)
            loss = self._bound_loss(sample)
            validation = _validation_split(self, X, y, groups, loss, ranks)
            random_state = check_random_state(self.random_state)
            before = self.net_.module_ if self.warm_start and hasattr(self, "net_") else None
            parts = [sample, *([] if validation is None or validation.sample is None else [validation.sample])]
            incomplete = self.allow_nan and ranks.any(any(values_missing(part) for part in parts))
            n_components = self._n_components(
                sample, device, validation, random_state, before, incomplete, loss, y, journal
            )
            regularizers = _bound(self, sample.X, y, n_components, random_state)
            start = self._start(sample, device, random_state, before, incomplete, n_components, loss, regularizers)
            bars = [EpochBar()] if self.verbose == 1 else []
            with tasks.whole(lambda net, record: _fitted_attributes(net, record, X)):
                config = self._config(start, random_state, regularizers)
                config = replace(config, progress=Progress([tasks, *bars]), journal=journal)
                self.__dict__.update(_fitted_attributes(*fit_network(start, config, validation), X))
                for name in ("_stream", "n_samples_seen_"):
                    self.__dict__.pop(name, None)
        return self

    @available_if(_takes_steps)
    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Self:
        """Fit the autoencoder incrementally to a chunk of samples, in one pass.

        Chunks can have any size from one sample. Mean and principal components are those of all samples so far. The
        network takes one step per half batch of new samples, with as many drawn from up to 2,000 earlier samples;
        samples that do not fill a half batch are kept for the next call. A fraction of the samples, also up to 2,000,
        is held out, and selects the network or PCA after each call. Several passes over the data give a better network.
        After `fit`, training continues from the fitted network. Parameters must not change after the first call.

        Parameters
        ----------
        X : {array-like, sparse matrix or array} of shape (n_samples, n_features)
            Samples. All chunks are converted to the dtype of the first one.
        y : Ignored
            Not used, present for API consistency by convention.
        sample_weight : array-like of shape (n_samples,), default=None
            As in `fit`.

        Returns
        -------
        AutoEncoderTransformer
            Fitted estimator.

        Raises
        ------
        ValueError
            If a parameter, the device, X or a weight is not as described, or if the loss becomes infinite or NaN.
        AttributeError
            If ``optimizer="lbfgs"``, or ``regularizer`` is "supervised" or "neighbors", which need all samples at once.
        """
        with _unchanged_on_failure(self), gradients_on():
            fresh = not hasattr(self, "net_")
            X = validate_samples(self, X, reset=fresh)
            if not fresh:
                check_imputes(self, X)
            sample = counted_sample(to_numpy(X), check_sample_weight(X, sample_weight))
            self._stream = stream = self._stream_for(sample)
            with stream.unchanged_on_failure():
                stream.take(sample)
                self.__dict__.update(_fitted_attributes(*stream.network(), X))
            self.n_samples_seen_ = stream.n_seen
            for name in OF_PCA:  # computed when they are read, which takes longer than a small chunk
                self.__dict__.pop(name, None)
        return self

    def __getattr__(self, name: str) -> Any:
        """Compute what the codes explain after `partial_fit`."""
        stream = self.__dict__.get("_stream")
        if name not in OF_PCA or not isinstance(stream, Stream):
            return super().__getattribute__(name)  # raises the error for a missing attribute
        self.__dict__.update(_of_pca(stream.explained(), self.mean_))
        return self.__dict__[name]

    def transform(self, X: Any) -> Any:
        """Transform samples to the codes of the nearest points of the decoder's manifold.

        Parameters
        ----------
        X : {array-like, sparse matrix or array} of shape (n_samples, n_features)
            Samples in the units of the training samples.

        Returns
        -------
        ndarray of shape (n_samples, n_components)
            Codes, in the dtype of X.

        Raises
        ------
        ValueError
            If the number of features or their names differ from those seen during `fit`, or if codes overflow.
        """
        check_is_fitted(self)
        X = validated_samples(self, X, "transform")
        return self._map(X, "project", self.n_components_)

    def inverse_transform(self, X: Any) -> Any:
        """Transform codes back to samples.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_components)
            Codes, as returned by `transform`.

        Returns
        -------
        ndarray of shape (n_samples, n_features)
            Reconstructions in the units of the training samples, in the dtype of the codes.

        Raises
        ------
        ValueError
            If the number of features is not ``n_components_``.
        """
        check_is_fitted(self)
        X = X.detach() if isinstance(X, torch.Tensor) else X
        Z = check_array(X, dtype=float_dtypes(X), estimator=self, input_name="X")
        if Z.shape[1] != self.n_components_:
            raise ValueError(
                f"X has {Z.shape[1]} features, but {type(self).__name__} has codes of "
                f"n_components={self.n_components_}. Pass codes as transform returns them."
            )
        check_kind(Z, self, "mean_", "inverse_transform")
        return self._map(Z, "decode", self.n_features_in_)

    @np.errstate(under="ignore")
    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:
        """Return the fraction of the variance of X that is explained by the reconstruction.

        It is ``1 - sum((X - X_hat)**2) / sum((X - mean_)**2)``. For the training samples, it is the sum of
        ``explained_variance_ratio_``, which may be computed on 4,096 of them.

        Parameters
        ----------
        X : {array-like, sparse matrix or array} of shape (n_samples, n_features)
            Samples in the units of the training samples.
        y : Ignored
            Not used, present for API consistency by convention.
        sample_weight : array-like of shape (n_samples,), default=None
            Sample weights.

        Returns
        -------
        float
            The score, without missing values. It is 1 for a perfect reconstruction, 0 for the mean of the training
            samples, and negative for worse ones.
        """
        check_is_fitted(self)
        return self._score(validated_samples(self, X, "score"), sample_weight, self.net_.module_)

    @np.errstate(under="ignore")
    def _prefix_scores(self, X: Any, sample_weight: Any = None) -> NDArray:
        """Return the scores of the first codes alone, from one code to all, of shape (n_components,)."""
        X, module = validated_samples(self, X, "score"), self.net_.module_.in_double()
        sizes = range(1, self.n_components_ + 1)
        return np.array([self._score(X, sample_weight, module.truncated(size)) for size in sizes])

    def _score(self, X: Any, sample_weight: Any, module: ScaledAutoEncoder) -> float:
        """Return the fraction of the variance of valid samples that a network explains."""
        squares = to_numpy(self._map(X, "squares", 2, np.float64, module))
        errors, offsets = Sample(squares, weights=check_sample_weight(squares, sample_weight)).weighted_sum(squares)
        if offsets == 0:
            return float(errors == 0)
        return float(1.0 - errors / offsets)

    @np.errstate(under="ignore")
    def score_samples(self, X: Any) -> Any:
        """Return minus the mean squared reconstruction error of each sample.

        It is low for samples that differ from the training samples.

        Parameters
        ----------
        X : {array-like, sparse matrix or array} of shape (n_samples, n_features)
            Samples in the units of the training samples.

        Returns
        -------
        ndarray of shape (n_samples,)
            Minus the mean over the features without missing values, in squared units of X; 0 for a perfect
            reconstruction.
        """
        check_is_fitted(self)
        return -self._mean_squares(validated_samples(self, X, "score_samples"))[:, 0]

    def _mean_squares(self, X: Any) -> Any:
        """Compute the mean square of each sample's error and that of its offset from the mean, of shape (n, 2)."""
        counts = asarray_like(n_present(to_numpy(X))[:, np.newaxis], X) if self.allow_nan else self.n_features_in_
        return self._map(X, "squares", 2, np.float64) / counts

    @property
    def _n_features_out(self) -> int:
        """Number of output features, for `get_feature_names_out`."""
        return self.n_components_

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        tags.array_api_support = True
        tags.input_tags.sparse = True
        tags.input_tags.allow_nan = self.allow_nan
        tags.target_tags.required = needs_y(self.regularizer)
        tags.input_tags.positive_only = self.loss == "poisson" or isinstance(self.loss, LOSSES["poisson"])
        return tags

    def __getstate__(self) -> dict[str, Any]:
        state = dict(super().__getstate__())
        if isinstance(state.get("_stream"), Stream):
            state.update((name, getattr(self, name)) for name in OF_PCA)
            state["_stream"] = state["_stream"].state()
        net = state.pop("net_", None)
        return stamped(state if net is None else {**state, NETWORK: net_to_dict(net)})

    def __setstate__(self, state: dict[str, Any]) -> None:
        state = checked(self, state, OF_TRANSFORMER)
        network = state.pop(NETWORK, None)
        if network is not None:
            check_transformer({**state, NETWORK: network})
        super().__setstate__(state)
        if network is not None:
            self.net_ = net_from_dict(network, str(state["device_"]))
            self.device_ = str(self.net_.device)

    @np.errstate(under="ignore")
    def _map(
        self,
        X: Any,
        direction: str,
        n_features: int,
        dtype: DTypeLike | None = None,
        module: ScaledAutoEncoder | None = None,
    ) -> Any:
        """Apply a method of a network, by default the fitted one, to samples or codes, at least in their precision."""
        if is_foreign(X):
            return asarray_like(self._map(to_numpy(X), direction, n_features, dtype, module), X)
        module = self.net_.module_ if module is None else module
        dtype = dtype or (np.float64 if is_float64(X) else np.float32)
        if is_float64(X) or direction != "decode":
            module = module.in_double()
        with threads_for(len(X) * module.architecture.n_weights):
            result = apply_in_batches(getattr(module, direction), X, n_features, module.mean, dtype)
        # NaN is both minimum and maximum. Extremes take less memory than a mask of all values.
        lowest, highest = torch.aminmax(torch.as_tensor(result), dim=1)
        finite = lowest.isfinite() & highest.isfinite()
        if direction != "decode" and not finite.all():
            worst = int(finite.byte().argmin())
            raise ValueError(
                f"X is too large: codes or squared errors of sample {worst} overflow {result.dtype}. Rescale X, for "
                "example with StandardScaler before fit, or drop such samples."
            )
        return result

    def _stream_for(self, sample: Sample) -> Stream:
        """Return the state after earlier chunks, or a new one."""
        stream = getattr(self, "_stream", None)
        if isinstance(stream, Stream):
            _check_values(stream.config.loss, sample.X, self.allow_nan)
            return stream
        if self.validation_split is not None:
            raise ValueError(
                "partial_fit holds out validation_fraction of the samples, but "
                f"validation_split={self.validation_split!r} asks for a split of all samples. Call fit, or set "
                "validation_split=None."
            )
        device = resolve_device(self.device)
        _check(self, sample, device, whole=False)
        if stream is None and self.allow_nan:
            check_features(sample)
        loss = self._bound_loss(sample) if stream is None else stream["loss"] or as_loss(self.loss)
        regularizers = _regularizers(self)
        random_state, dtype = check_random_state(self.random_state), sample.dtype
        before = self.net_.module_ if hasattr(self, "net_") else None
        if stream is not None:  # loaded from a file
            _check_values(loss, sample.X, self.allow_nan)
            random_state, dtype = np.random.RandomState(), stream["waiting"].dtype
            before = model_from_dict(stream["before"])
            random_state.set_state(stream["seeds"])
        fraction = self.validation_fraction if self.early_stopping else None
        if stream is None:
            validation = None if fraction is None else ValidationSplit(fraction)
            n_components = self._n_components(sample, device, validation, random_state, before, self.allow_nan, loss)
        else:
            n_components = self.n_components_
        seeds = random_state.get_state()
        empty = Sample(np.zeros((0, sample.shape[1]), dtype))
        start = self._start(empty, device, random_state, before, self.allow_nan, n_components, loss, regularizers)
        half_life = np.inf if self.forgetting is None else float(self.forgetting)
        fresh = Stream(start, self._config(start, random_state, regularizers), fraction, seeds, half_life)
        if stream is not None:
            fresh.restore(stream)
        return fresh

    def _n_components(
        self,
        sample: Sample,
        device: torch.device,
        validation: Any,
        random_state: Any,
        before: Any,
        incomplete: bool,
        loss: Loss,
        y: Any = None,
        journal: Journal | None = None,
    ) -> int:
        """Return the number of components, which is chosen by held-out samples for a float and "auto"."""
        wanted: Any = self.n_components
        if isinstance(wanted, Integral):
            return int(wanted)
        if before is not None:  # training continues
            return before.architecture.n_components
        if wanted is None:
            return min(sample.full_shape)
        if validation is None:
            raise ValueError(
                f"n_components={wanted!r} is chosen by held-out samples, of which early_stopping=False has none. Pass "
                "an int, or early_stopping=True."
            )
        regularizers = _bound(self, sample.X, y, None, random_state)
        state = random_state.get_state()  # with the same draws, networks are those of a fit with an int

        def start_of(n_components: int) -> tuple[NetworkInitializer, np.random.RandomState]:
            draws = np.random.RandomState()
            draws.set_state(state)
            return self._start(sample, device, draws, None, incomplete, n_components, loss, regularizers), draws

        start, draws = start_of(1)
        config = replace(self._config(start, draws, regularizers), journal=journal or Journal())
        with threads_for(config.batch_size * start.architecture.n_weights):
            scores = HeldOutScores(start, config, validation, lambda n: start_of(n)[0].architecture)
            return justified_components(scores) if wanted == "auto" else fewest_components(float(wanted), scores)

    def _start(
        self,
        sample: Sample,
        device: torch.device,
        random_state: Any,
        before: Any,
        incomplete: bool,
        n_components: int,
        loss: Loss,
        regularizers: Sequence[Regularizer],
    ) -> NetworkInitializer:
        """Return the initialization of the network."""
        seed = draw_seed(random_state) if self.module is not None else 0
        bottleneck = n_components + (0 if before is None else before.architecture.n_dropped)
        demands = _demands(self, sample.dtype, device)
        n_outputs = sum(one.n_outputs for one in regularizers)
        architecture = _architecture(self, sample.X.shape[1], n_components, bottleneck, n_outputs, seed, demands)
        architecture = replace(architecture, link=loss._links)
        if before is not None:
            check_same(before.architecture, architecture)
        return NetworkInitializer(sample, architecture, device, draw_seed(random_state), before, incomplete, loss=loss)

    def _bound_loss(self, sample: Sample) -> Loss:
        """Return the loss for the samples of a fit."""
        return as_loss(self.loss).bind(sample, getattr(self, "feature_names_in_", None))

    def _config(
        self, start: NetworkInitializer, random_state: np.random.RandomState, regularizers: Sequence[Regularizer]
    ) -> TrainingConfig:
        """Return the parameters of the training."""
        batch_size, n_samples = self.batch_size, start.sample.count
        if batch_size == "auto":  # a stream begins without samples
            batch_size = (n_samples if self.optimizer == "lbfgs" else min(n_samples, BATCH_SIZE)) or STREAM_BATCH
        return TrainingConfig(
            loss=start.loss,
            regularizers=regularizers,
            nested=_nested(self),
            optimizer=self.optimizer,
            optimizer_params=self.optimizer_params or {},
            lr=learning_rate(self.optimizer, self.lr, start.architecture.kind, n_samples),
            automatic_rate=self.lr == "auto" and self.optimizer == "adam",
            alpha=self.alpha,
            batch_size=int(batch_size),
            max_epochs=None if self.max_epochs == "auto" else int(self.max_epochs),
            projection_steps=DEFAULT_STEPS if self.projection_steps == "auto" else int(self.projection_steps),
            tol=self.tol,
            callbacks=tuple(self.callbacks or ()),
            verbose=max(self.verbose - 1, 0),
            whiten=self.whiten,
            seed=draw_seed(random_state),
            incomplete=start.incomplete,
        )


def _validation_split(estimator: Any, X: Any, y: Any, groups: Any, loss: Loss, ranks: Ranks) -> ValidationSplit | None:
    """Return the validation split; None without early stopping."""
    if not estimator.early_stopping:
        return None
    split = estimator.validation_split
    if split is None:
        return ValidationSplit(estimator.validation_fraction)
    if hasattr(split, "split"):
        values = X.X if isinstance(X, WrappedSamples) else X
        splits = [(np.asarray(train), np.asarray(held_out)) for train, held_out in split.split(values, y, groups)]
        if not splits or any(len(part) == 0 for pair in splits for part in pair):
            raise ValueError(
                f"validation_split={split!r} made {len(splits)} splits of {X.shape[0]} samples, at least one of which "
                "has no sample to train on or none to hold out. Choose a splitter that leaves at least one for each."
            )
        return ValidationSplit(splits=splits)
    held_out = validate_samples(estimator, split, reset=False)
    # All processes were given the same samples, of which each evaluates a part.
    sample = Sample(to_numpy(held_out)[ranks.rank :: ranks.size] if ranks.size > 1 else to_numpy(held_out), ranks=ranks)
    _check_values(loss, sample.X, estimator.allow_nan)
    return ValidationSplit(sample=sample)


def _fitted_attributes(net: ReconstructionNet, record: TrainingResult, X: Any) -> dict[str, Any]:
    """Return the fitted attributes by name."""
    module, explained = net.module_, record.explained
    mean = asarray_like(module.mean.cpu().numpy().copy(), X)
    return {
        **({} if explained is None else _of_pca(explained, mean)),
        "net_": net,
        "device_": str(net.device),
        "n_components_": module.architecture.n_components,
        "mean_": mean,
        "n_iter_": len(record.train_losses),
        "best_epoch_": record.best_epoch,
        "loss_curve_": record.train_losses,
        "validation_scores_": record.valid_scores,
        "validation_epochs_": record.valid_epochs,
    }


def _of_pca(explained: ExplainedVariance, mean: Any) -> dict[str, Any]:
    """Return what the codes explain by the names of PCA, as arrays like the mean."""
    values = explained.components, explained.variance, explained.ratio
    arrays = [asarray_like(array.astype(to_numpy(mean).dtype), mean) for array in values]
    return dict(zip(OF_PCA, [*arrays, explained.noise_variance, explained.n_samples], strict=True))


@contextmanager
def _unchanged_on_failure(estimator: Any) -> Iterator[None]:
    """Restore the attributes of an estimator if the block raises an error or is interrupted."""
    before = dict(vars(estimator))
    try:
        with np.errstate(under="ignore"):  # tiny numbers become zero
            yield
    except BaseException:
        vars(estimator).clear()
        vars(estimator).update(before)
        raise


def _check(estimator: Any, sample: Sample, device: torch.device, whole: bool = True) -> None:
    """Check parameters in combination and with the samples."""
    n_samples, n_features = sample.full_shape
    regularizers, nested = _regularizers(estimator), _nested(estimator)
    n_components: Any = estimator.n_components
    untrained = estimator.max_epochs == 0 or (estimator.activation == "identity" and estimator.linear_skip)
    if n_components is None and not regularizers and not untrained:
        raise ValueError(
            f"n_components=None is min(n_samples, n_features)={min(n_samples, n_features)}, as in PCA: with so many "
            "codes, a network can copy the training samples. Choose fewer components, a fraction of the variance such "
            "as 0.95, 'auto', or a regularizer that stops the copying."
        )
    given = isinstance(n_components, Integral)
    if given and n_components > n_features and not regularizers:
        raise ValueError(
            f"n_components={n_components} must not exceed n_features={n_features}: a bottleneck wider than "
            "the input can copy it. Choose fewer components, or a regularizer that stops the copying."
        )
    if whole and estimator.linear_skip and given and n_components > n_samples:
        raise ValueError(
            f"n_components={n_components} must be between 1 and min(n_samples, n_features)="
            f"{min(n_samples, n_features)}: {n_samples} samples have no more principal directions. "
            "Choose fewer components or pass more samples."
        )
    if estimator.normalization == "batch" and estimator.batch_size == 1 and estimator.max_epochs != 0:
        raise ValueError(
            "normalization='batch' needs batches of at least 2 samples, got batch_size=1. Choose a larger batch_size, "
            "or normalization='layer'."
        )
    if nested is not None and given:
        nested.frequencies(int(n_components))
    elif nested is not None and nested.weights is not None:
        raise ValueError(
            f"weights={nested.weights!r} of Nested are one for each code, but n_components={n_components!r} does not "
            "say how many these are. Pass an int, or weights=None."
        )
    _check_values(as_loss(estimator.loss), sample.X, estimator.allow_nan)
    check_dtype_on_device(sample.dtype, device)
    lr = learning_rate(estimator.optimizer, estimator.lr)
    check_optimizer(estimator.optimizer, estimator.optimizer_params or {}, lr)
    check_callbacks(estimator.callbacks or ())


def _regularizers(estimator: Any) -> tuple[Regularizer, ...]:
    """Return the regularizers of the loss."""
    return tuple(one for one in as_regularizers(estimator.regularizer) if not isinstance(one, Nested))


def _bound(
    estimator: Any, X: Any, y: Any, n_components: int | None, random_state: np.random.RandomState
) -> tuple[Regularizer, ...]:
    """Return the regularizers of the loss for the samples of a fit."""
    regularizers = _regularizers(estimator)
    if sum(one.needs_y for one in regularizers) > 1:
        raise ValueError(f"regularizer={estimator.regularizer!r} has more than one that needs y. Pass one.")
    if y is None and any(one.needs_y for one in regularizers):
        raise ValueError(
            f"This {type(estimator).__name__} estimator requires y to be passed, but the target y is None. Pass the "
            "labels of the samples, or choose another regularizer."
        )
    if not needs_all(estimator.regularizer):
        return regularizers
    return tuple(one.bind(X, y, n_components, draw_seed(random_state)) for one in regularizers)


def _nested(estimator: Any) -> Nested | None:
    """Return what orders the codes; None does not order them."""
    chosen = [one for one in as_regularizers(estimator.regularizer) if isinstance(one, Nested)]
    if len(chosen) > 1:
        raise ValueError(f"regularizer has {len(chosen)} Nested, {chosen}, but codes are ordered in one way. Pass one.")
    ordered = estimator.ordered and all(one.ordered for one in _regularizers(estimator))
    return chosen[0] if chosen else Nested(fraction=0.0) if ordered else None


def _check_values(loss: Loss, X: Any, allow_nan: bool) -> None:
    """Check that the loss is defined for the values."""
    # SciPy's minimum sorts a sparse matrix in place, and large data should be read only once.
    values = X if isinstance(X, np.ndarray) and not allow_nan else extremes(X)
    for one, columns in loss._blocks():
        block = values[:, columns]
        if allow_nan:  # minima and maxima of features without any value are infinite
            block = block[:, np.isfinite(block).all(axis=0)]
        if block.size > 0:
            one.check(block)


def _demands(estimator: Any, dtype: np.dtype, device: torch.device) -> Demands:
    """Return the requirements for a custom module."""
    trained_in = dtype if estimator.optimizer == "lbfgs" else np.float32
    return Demands(
        device,
        torch_dtype(np.dtype(trained_in)) if estimator.max_epochs != 0 else None,
        1 if estimator.batch_size == 1 else 2,
        any(isinstance(one, Contractive) for one in _regularizers(estimator)),
    )


def _architecture(
    estimator: Any, n_features: int, n_components: int, bottleneck: int, n_outputs: int, seed: int, demands: Demands
) -> Architecture:
    """Return the architecture for the parameters, whose codes after the first ``n_components`` are dropped."""
    kind = estimator.architecture
    encoder = _layer_sizes(estimator.hidden_layer_sizes, "hidden_layer_sizes")
    if encoder is None:
        encoder = DEFAULT_SIZES if kind == "conv" else automatic_sizes(n_features, bottleneck)
    decoder = _layer_sizes(estimator.decoder_layer_sizes, "decoder_layer_sizes")
    if kind == "tied" and decoder not in (None, encoder[::-1]):
        raise ValueError(
            f"decoder_layer_sizes={decoder} must be 'auto' with architecture='tied', whose decoder is the encoder's "
            f"mirror: {encoder[::-1]}."
        )
    decoder = encoder[::-1] if decoder is None else decoder
    shape = None if estimator.input_shape is None else tuple(int(side) for side in estimator.input_shape)
    if kind == "conv":
        check_images(shape, n_features, encoder, decoder)
    loss, regularizers, module = as_loss(estimator.loss), _regularizers(estimator), estimator.module
    module, needs = tried_module(module, estimator.module_params or {}, n_features, bottleneck, seed, demands)
    if module is not None:
        kind = "module"
    elif estimator.linear_skip and estimator.activation == "identity" and not regularizers:
        kind = "pca" if type(loss) is SquaredError else kind  # PCA has the lowest squared error of linear networks
    return Architecture(
        n_features,
        n_components,
        encoder,
        decoder,
        estimator.activation,
        estimator.linear_skip,
        kind=kind,
        input_shape=shape if kind == "conv" else None,
        normalization=estimator.normalization,
        dropout=float(estimator.dropout),
        variational=any(regularizer.variational for regularizer in regularizers),
        module=module,
        fills=bool(estimator.allow_nan),
        module_needs=needs,
        n_dropped=bottleneck - n_components,
        n_outputs=n_outputs,
    )


def _layer_sizes(sizes: Any, name: str) -> tuple[int, ...] | None:
    """Return layer sizes as a tuple, or None for "auto"."""
    if sizes is None or (isinstance(sizes, str) and sizes == "auto"):
        return None
    widths = (sizes,) if isinstance(sizes, Integral) else tuple(sizes)
    if not all(isinstance(width, Integral) and int(width) > 0 for width in widths):
        raise ValueError(f"{name} must be 'auto' or hold integers of at least 1, got {sizes!r}.")
    return tuple(int(width) for width in widths)
