"""AutoEncoderTransformer: parameters, validation and public methods."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from numbers import Integral, Real

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin, _fit_context
from sklearn.utils import check_array, check_random_state
from sklearn.utils._param_validation import HasMethods, Interval, StrOptions
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from skae._data.array_api import asarray_like, check_kind, float_dtypes, is_float64, is_foreign, to_numpy
from skae._data.containers import WrappedSamples, extremes
from skae._data.dataset import apply_in_batches
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
from skae._network.state import NETWORK, OF_TRANSFORMER, check_transformer, checked, stamped
from skae._objectives.losses import LOSSES, SquaredError, as_loss
from skae._objectives.regularizers import REGULARIZERS, Contractive, Regularizer, as_regularizers
from skae._training.fit import NetworkInitializer, fit_network
from skae._training.net import TrainingConfig, check_callbacks, net_from_dict, net_to_dict
from skae._training.optimizers import OPTIMIZERS, check_optimizer, learning_rate
from skae._training.partial_fit import STREAM_BATCH, Stream, model_from_dict
from skae._training.progress import CallbackSupportMixin, EpochBar, FitTasks, Progress
from skae._training.selection import ValidationSplit, automatic_batch_size
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


def _takes_steps(estimator):
    """Whether an estimator can learn from some of the samples."""
    if isinstance(estimator.optimizer, str) and estimator.optimizer == "lbfgs":
        raise AttributeError(
            "partial_fit is not available with optimizer='lbfgs', which takes all samples in each step. Call fit, or "
            "choose another optimizer."
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
    """Nonlinear dimensionality reduction by an autoencoder that starts at PCA.

    The codes are the principal components plus what a network adds to them, and the reconstruction is
    PCA's plus what a second network adds. PCA is the first candidate; samples held out from training decide
    whether and how far training goes on from there.

    Parameters
    ----------
    n_components : int, default=2
        Number of components, the size of the bottleneck; at most ``min(n_samples, n_features)``.
    hidden_layer_sizes : "auto", int or sequence of int, default="auto"
        Widths of the encoder's hidden layers, from the input to the bottleneck. "auto" chooses two from the
        numbers of features and components.
    decoder_layer_sizes : "auto", int or sequence of int, default="auto"
        Widths of the decoder's hidden layers, from the bottleneck to the output. "auto" mirrors the encoder.
    activation : {"gelu", "relu", "silu", "elu", "tanh", "logistic", "identity"}, default="gelu"
        Nonlinearity between the layers. "identity" makes the autoencoder linear; with ``linear_skip=True``
        that is PCA itself, and nothing is left to train.
    linear_skip : bool, default=True
        Whether PCA runs beside the networks. False gives the plain autoencoder, which starts anywhere and
        may end below PCA.
    loss : str, Loss or callable, default="squared_error"
        What training minimizes, pooled over all features: "squared_error", "absolute_error", "huber",
        "binary_cross_entropy", "poisson" or "cosine". "binary_cross_entropy" is for values between 0 and 1,
        "poisson" for counts, "cosine" for embeddings. A callable ``loss(x_hat, x)``, such as a torch loss with
        ``reduction="none"``, takes samples in units of the data and returns the loss of each value or sample.
        Reconstructions are means: probabilities with "binary_cross_entropy", rates with "poisson". PCA is
        judged by the loss, and kept if no epoch improves on it, with ``linear_skip=True``.
    regularizer : str, Regularizer, list of these or None, default=None
        Regularization added to the loss: "denoising", "sparse", "contractive" or "variational"; see
        `skae.Denoising`, `skae.Sparse`, `skae.Contractive` and `skae.Variational`. Epochs are then compared by the
        loss with what the regularizer adds, so the reconstruction may be worse than PCA's.
    architecture : {"dense", "tied", "conv"}, default="dense"
        How the networks are built. "tied" has the encoder's weights transposed in the decoder. "conv" is for samples
        that are images: strided convolutions and one dense layer, and the other way round.
        ``hidden_layer_sizes`` are then the channels, and last the width of the dense layer, (32, 64, 256) by
        default.
    input_shape : tuple of int or None, default=None
        Channels, height and width of the images, for "conv".
    allow_nan : bool, default=False
        Whether X may have NaN for missing values. They are imputed by probabilistic PCA from the other values of the
        sample, and are ignored in losses and scores; held-out samples are compared with some of their values hidden.
        ``inverse_transform(transform(X))`` has values for them. A sample of which all values are missing is replaced
        by the mean; a feature of which all values are missing raises an error.
    normalization : {"batch", "layer"} or None, default=None
        Normalizes hidden values before each activation, over a batch or over a sample.
    dropout : float, default=0.0
        Fraction of the hidden values that is dropped at each step of training.
    module : torch.nn.Module class or instance or None, default=None
        A network of your own in place of these, with ``encode`` from (n, n_features) to (n, n_components) and
        ``decode`` back; samples are centered and of unit spread. A class is called with the two numbers; of an
        instance a copy is trained. With ``linear_skip=True`` it learns what PCA leaves.
    module_params : dict or None, default=None
        Further arguments for a ``module`` that is a class, such as ``{"width": 64}``.
    alpha : float, default=0.0
        Strength of the L2 penalty on the weights: the optimizer's weight decay where it has one.
    whiten : bool, default=False
        False gives codes in units of the data, as PCA's are: a step of one moves the reconstruction by one, by root
        mean square over training samples. True gives codes of unit variance on the training samples.
    projection_steps : "auto" or int, default="auto"
        Largest number of steps that `transform` takes from the code of the encoder, or of PCA, toward the nearest point
        of the decoder's manifold. "auto" is 16, of which samples need four to six. 0 is the encoder alone, for example
        where single samples have to be encoded within a fraction of a millisecond.
    optimizer : {"adam", "adamw", "sgd", "lbfgs"} or torch optimizer class, default="adam"
        Finds the weights. "lbfgs" takes all samples in each step.
    optimizer_params : dict or None, default=None
        Further arguments for the optimizer, such as ``{"momentum": 0.95}`` for "sgd". They go before what is chosen
        here otherwise: a momentum of 0.9 after Nesterov for "sgd", a line search for "lbfgs", and ``alpha``.
    lr : "auto" or float, default="auto"
        Learning rate, from which it falls linearly to zero in each run after a short rise. "auto" is 0.025 for dense
        and 0.003 for other networks, 0.1 for "sgd" and 1 for "lbfgs". A `skorch.callbacks.LRScheduler` replaces this
        schedule. It does not depend on the units of X.
    max_epochs : "auto" or int, default="auto"
        Largest number of passes over the training samples in the search; 0 is PCA. "auto" is a budget of steps that
        doubles while held-out samples gain: 300, 600 and 1,200 for up to 2,000 samples, more for more samples. With
        ``early_stopping=False`` exactly so many epochs are run, and "auto" is 600 steps.
    batch_size : "auto" or int, default="auto"
        Number of samples per step, about which the samples are divided evenly. "auto" is 256, or all samples if there
        are fewer.
    early_stopping : bool, default=True
        Whether samples are held out from training, to decide whether a network is better than PCA and how long to
        train. Otherwise the last epoch is kept, unless PCA reconstructs the training samples better.
    validation_fraction : float, default=0.1
        Fraction of the samples set aside, chosen at random. Few samples are set aside in several parts in turn, each
        with a training of its own, and refit on together. Identical samples, near copies (nearer to each other than
        a tenth of the usual distance to the nearest other sample) and samples of a group are on one side.
    validation_split : cross-validation splitter, {array-like, sparse matrix} of shape (n_validation, n_features) or \
            None, default=None
        Which samples are set aside, in place of a random fraction: a splitter of scikit-learn, such as
        ``GroupKFold(10)`` or ``PredefinedSplit``, each split of which is a training of its own; or validation samples
        beside X, which never train. It is called with the ``y`` and ``groups`` of `fit`.
    tol : float, default=0.015
        Gain of the held-out samples, as a fraction of the variance, below which the search ends.
    warm_start : bool, default=False
        Whether `fit` continues from the fitted network, moved to the mean and the scale of X. Training starts from PCA
        if that reconstructs X better.
    callbacks : list of skorch callbacks, default=None
        Callbacks for the training that chooses the epoch, instances, classes or pairs of a name and either. Copies of
        those that change what is learned act in every other training too, as on all samples: ``LRScheduler``,
        ``Freezer`` and other ``ParamMapper``, ``GradientNormClipping``, and all with a method ``on_grad_computed``.
    device : str or torch.device, default="cpu"
        "cpu", "cuda", "cuda:1", "mps", or "auto" for the fastest one present.
    random_state : int, RandomState instance or None, default=None
        Controls the validation split, weight initialization and shuffling. Pass an int for reproducible results, which
        are the same to the last bit on a CPU.
    verbose : int, default=0
        0 is silent. 1 shows a bar with the epoch, the losses as shares of the variance, the best epoch so far and the
        time that is left at most. 2 prints a line for each epoch.

    Attributes
    ----------
    n_components_ : int
        Size of the bottleneck.
    mean_ : ndarray of shape (n_features,)
        Mean of each feature of the training samples.
    n_iter_ : int
        Epochs run.
    best_epoch_ : int
        Number of epochs after which held-out samples were best; 0 is the start, which is PCA with
        ``linear_skip=True``. Training then ends with some steps on all samples.
    loss_curve_ : list of float
        Training loss of each epoch of the search, regularizers included, as a fraction of the loss of the mean.
    validation_scores_ : list of float or None
        Fraction of the held-out samples' variance explained, of another loss the fraction saved, by codes after three
        steps of the projection: at the start, and after each run. None if no samples were held out.
    validation_epochs_ : list of int
        Number of epochs before each of these.
    device_ : str
        Where the network is.
    net_ : skorch.NeuralNet
        The fitted net, its module in evaluation mode.
    n_features_in_ : int
        Number of features seen during `fit`.
    feature_names_in_ : ndarray of shape (n_features,)
        Names of the features, where X had names that are all strings.

    See Also
    --------
    sklearn.decomposition.PCA : The linear case, and the start of this one.
    sklearn.decomposition.KernelPCA : Nonlinear by a kernel; its inverse is approximate.
    sklearn.neural_network.MLPRegressor : ``MLPRegressor().fit(X, X)`` is a plain autoencoder without codes.

    Notes
    -----
    X is centered and scaled internally, so neither units nor offsets matter. PCA's code is the least-squares code of a
    sample; an encoder only estimates it. `transform` therefore moves the code of the encoder by a few gradient steps to
    that of the nearest point of the decoder's manifold, by the loss that was trained. Training consists of runs, in
    each of which the learning rate falls to zero; their length doubles while held-out samples, projected, gain more
    than ``tol``. The last steps are taken on all samples. The result is PCA of all samples where so few samples carry
    the loss that held-out samples could say nothing about others, where no run improves on PCA by more than two
    standard errors, and where the network reconstructs all samples worse than PCA.

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
        "n_components": [Interval(Integral, 1, None, closed="left")],
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
        "callbacks": [list, tuple, None],
        "device": [str, torch.device],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        n_components=2,
        *,
        hidden_layer_sizes="auto",
        decoder_layer_sizes="auto",
        activation="gelu",
        linear_skip=True,
        loss="squared_error",
        regularizer=None,
        architecture="dense",
        input_shape=None,
        allow_nan=False,
        normalization=None,
        dropout=0.0,
        module=None,
        module_params=None,
        alpha=0.0,
        whiten=False,
        projection_steps="auto",
        optimizer="adam",
        optimizer_params=None,
        lr="auto",
        max_epochs="auto",
        batch_size="auto",
        early_stopping=True,
        validation_fraction=0.1,
        validation_split=None,
        tol=0.015,
        warm_start=False,
        callbacks=None,
        device="cpu",
        random_state=None,
        verbose=0,
    ):
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
        self.callbacks = callbacks
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y=None, sample_weight=None, groups=None):
        """Fit the autoencoder.

        Parameters
        ----------
        X : {array-like, sparse matrix or array} of shape (n_samples, n_features)
            Training samples, at least two; float32 and float64 are kept, everything else becomes float64.
        y : Ignored
            Not used, present for scikit-learn's sake: the samples are their own targets.
        sample_weight : array-like of shape (n_samples,), default=None
            How much each sample counts: in PCA, in the loss and where an epoch is chosen. Whole numbers count as
            repetitions of a sample, up to ten a sample on average, other weights relative to their mean. Samples of
            weight zero are ignored.
        groups : array-like of shape (n_samples,), default=None
            Labels of samples that depend on each other, such as measurements of one patient or windows of one
            recording, numbers or strings. The samples of a group are on one side of the validation split, and count
            as one where uncertainty is estimated. None finds identical samples and near copies, and takes each of the
            others for a group of its own.

        Returns
        -------
        AutoEncoderTransformer
            The estimator itself.

        Raises
        ------
        ValueError
            If a parameter, the device, X or a weight is not as described, if ``n_components`` exceeds
            ``min(n_samples, n_features)``, or if the loss becomes infinite or no number.
        TypeError
            If ``optimizer`` is a class but no torch optimizer, or ``callbacks`` holds what is no skorch callback.
        """
        tasks = FitTasks(self, X, {"sample_weight": sample_weight, "groups": groups})
        with _unchanged_on_failure(self), gradients_on():
            device = resolve_device(self.device)
            X = validate_samples(self, X, ensure_min_samples=2)
            sample = weighted_sample(to_numpy(X), check_sample_weight(X, sample_weight))
            _check(self, sample, device)
            if groups is not None:
                sample = replace(sample, groups=check_groups(X, groups)[sample.numbers])
            validation = _validation_split(self, X, y, groups)
            random_state = check_random_state(self.random_state)
            before = self.net_.module_ if self.warm_start and hasattr(self, "net_") else None
            parts = [sample, *([] if validation is None or validation.sample is None else [validation.sample])]
            incomplete = self.allow_nan and any(values_missing(part) for part in parts)
            if incomplete:
                check_features(sample)
            start = self._start(sample, device, random_state, before, incomplete)
            bars = [EpochBar()] if self.verbose == 1 else []
            with tasks.whole(lambda net, record: _fitted_attributes(net, record, X)):
                config = replace(self._config(start, random_state), progress=Progress([tasks, *bars]))
                vars(self).update(_fitted_attributes(*fit_network(start, config, validation), X))
                for name in ("_stream", "n_samples_seen_"):
                    vars(self).pop(name, None)
        return self

    @available_if(_takes_steps)
    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X, y=None, sample_weight=None):
        """Learn from some more samples, in one pass over them.

        For samples that come in chunks, of any size from one sample. The running mean and principal directions are
        those of all samples so far. The network takes a step for every half batch of new samples, together with as
        many out of a memory of 2000; samples that do not fill a half batch wait for the next call. A fraction of the
        samples, as many at most, is held out; by these it is decided after each call whether the codes are the
        network's or PCA's. Go over the data several times for a better network. After `fit`, training continues from
        the fitted network. All parameters keep the values that they have at the first call.

        Parameters
        ----------
        X : {array-like, sparse matrix or array} of shape (n_samples, n_features)
            Samples; the dtype of the first chunk stays.
        y : Ignored
            Not used, present for scikit-learn's sake.
        sample_weight : array-like of shape (n_samples,), default=None
            As in `fit`.

        Returns
        -------
        AutoEncoderTransformer
            The estimator itself.

        Raises
        ------
        ValueError
            If a parameter, the device, X or a weight is not as described, or if the loss becomes infinite or no
            number.
        AttributeError
            If ``optimizer="lbfgs"``, which takes all samples in each step.
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
                vars(self).update(_fitted_attributes(*stream.network(), X))
            self.n_samples_seen_ = stream.n_seen
        return self

    def transform(self, X):
        """Map samples to codes: those of the nearest points of the decoder's manifold.

        Parameters
        ----------
        X : {array-like, sparse matrix or array} of shape (n_samples, n_features)
            Samples in the units of the training samples.

        Returns
        -------
        ndarray of shape (n_samples, n_components)
            The codes, in the dtype of X.

        Raises
        ------
        ValueError
            If the number of features or their names differ from those seen during `fit`, or if codes overflow.
        """
        check_is_fitted(self)
        X = validated_samples(self, X, "transform")
        return self._map(X, "project", self.n_components_)

    def inverse_transform(self, X):
        """Map codes back to samples.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_components)
            Codes as `transform` returns them.

        Returns
        -------
        ndarray of shape (n_samples, n_features)
            Reconstructed samples in the units of the training samples, in the dtype of the codes.

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
    def score(self, X, y=None, sample_weight=None):
        """Return the fraction of the variance of X that its reconstruction explains, all features pooled.

        ``1 - sum((X - X_hat)**2) / sum((X - mean_)**2)``. On the training samples of a linear autoencoder it is
        the sum of PCA's ``explained_variance_ratio_``; on other samples it is comparable between the two.

        Parameters
        ----------
        X : {array-like, sparse matrix or array} of shape (n_samples, n_features)
            Samples in the units of the training samples.
        y : Ignored
            Not used.
        sample_weight : array-like of shape (n_samples,), default=None
            How much each sample's squares count; equally if None.

        Returns
        -------
        float
            Over values that are there. 1 is perfect, 0 is as good as the mean of the training samples, below 0 is
            worse.
        """
        check_is_fitted(self)
        X = validated_samples(self, X, "score")
        squares = to_numpy(self._map(X, "squares", 2, np.float64))
        errors, offsets = Sample(squares, weights=check_sample_weight(squares, sample_weight)).weighted_sum(squares)
        if offsets == 0:
            return float(errors == 0)
        return float(1.0 - errors / offsets)

    @np.errstate(under="ignore")
    def score_samples(self, X):
        """Return minus the mean squared reconstruction error of each sample.

        It is low where a sample is unlike the training samples.

        Parameters
        ----------
        X : {array-like, sparse matrix or array} of shape (n_samples, n_features)
            Samples in the units of the training samples.

        Returns
        -------
        ndarray of shape (n_samples,)
            In squared units of X, the mean over the features that the sample has values in; 0 is a perfect
            reconstruction.
        """
        check_is_fitted(self)
        return -self._mean_squares(validated_samples(self, X, "score_samples"))[:, 0]

    def _mean_squares(self, X):
        """Mean squares of each sample's reconstruction error and of its offset from the mean, of shape (n, 2)."""
        counts = asarray_like(n_present(to_numpy(X))[:, np.newaxis], X) if self.allow_nan else self.n_features_in_
        return self._map(X, "squares", 2, np.float64) / counts

    @property
    def _n_features_out(self):
        """Number of codes, for `get_feature_names_out`."""
        return self.n_components_

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        tags.array_api_support = True
        tags.input_tags.sparse = True
        tags.input_tags.allow_nan = self.allow_nan
        tags.input_tags.positive_only = self.loss == "poisson" or isinstance(self.loss, LOSSES["poisson"])
        return tags

    def __getstate__(self):
        state = dict(super().__getstate__())
        if isinstance(state.get("_stream"), Stream):
            state["_stream"] = state["_stream"].state()
        net = state.pop("net_", None)
        return stamped(state if net is None else {**state, NETWORK: net_to_dict(net)})

    def __setstate__(self, state):
        state = checked(self, state, OF_TRANSFORMER)
        network = state.pop(NETWORK, None)
        if network is not None:
            check_transformer({**state, NETWORK: network})
        super().__setstate__(state)
        if network is not None:
            self.net_ = net_from_dict(network, self.device_)
            self.device_ = str(self.net_.device)

    @np.errstate(under="ignore")
    def _map(self, X, direction, n_features, dtype=None):
        """Send samples or codes through the network, at least in its precision and at least in theirs."""
        if is_foreign(X):
            return asarray_like(self._map(to_numpy(X), direction, n_features, dtype), X)
        module = self.net_.module_
        dtype = dtype or (np.float64 if is_float64(X) else np.float32)
        if is_float64(X) or direction != "decode":
            module = module.in_double()
        with threads_for(len(X) * module.architecture.n_weights):
            result = apply_in_batches(getattr(module, direction), X, n_features, module.mean, dtype)
        finite = torch.isfinite(torch.as_tensor(result))
        if direction != "decode" and not finite.all():
            worst = int(finite.all(dim=1).byte().argmin())
            raise ValueError(
                f"X is too large: codes or squared errors of sample {worst} overflow {result.dtype}. Rescale X, for "
                "example with StandardScaler before fit, or drop such samples."
            )
        return result

    def _stream_for(self, sample):
        """Return the state of earlier chunks, or a new one."""
        stream = getattr(self, "_stream", None)
        if isinstance(stream, Stream):
            _check_values(self, sample.X)
            return stream
        if self.validation_split is not None:
            raise ValueError(
                "partial_fit holds out validation_fraction of the samples, but "
                f"validation_split={self.validation_split!r} asks for a split of all samples. Call fit, or set "
                "validation_split=None."
            )
        device = resolve_device(self.device)
        _check(self, sample, device, whole=False)
        random_state, dtype = check_random_state(self.random_state), sample.dtype
        before = self.net_.module_ if hasattr(self, "net_") else None
        if stream is not None:  # as it came out of a file
            random_state, dtype, before = (
                np.random.RandomState(),
                stream["waiting"].dtype,
                model_from_dict(stream["before"]),
            )
            random_state.set_state(stream["seeds"])
        elif self.allow_nan:
            check_features(sample)
        seeds = random_state.get_state()
        asarray_like = Sample(np.zeros((0, sample.shape[1]), dtype))
        start = self._start(asarray_like, device, random_state, before, self.allow_nan)
        fresh = Stream(start, self._config(start, random_state), _fraction(self), seeds)
        if stream is not None:
            fresh.restore(stream)
        return fresh

    def _start(self, sample, device, random_state, before, incomplete):
        """Where training begins: at PCA, anywhere, or at the fit before."""
        seed = draw_seed(random_state) if self.module is not None else 0
        architecture = _architecture(self, sample.shape[1], seed, _demands(self, sample.dtype, device))
        if before is not None:
            check_same(before.architecture, architecture)
        return NetworkInitializer(sample, architecture, device, draw_seed(random_state), before, incomplete)

    def _config(self, start, random_state):
        """How to train."""
        n_samples = len(start.sample)
        lbfgs = self.optimizer == "lbfgs"
        batch_size = self.batch_size
        if batch_size == "auto":
            batch_size = n_samples if lbfgs else automatic_batch_size(n_samples) if n_samples > 0 else STREAM_BATCH
        return TrainingConfig(
            loss=as_loss(self.loss),
            regularizers=as_regularizers(self.regularizer),
            optimizer=self.optimizer,
            optimizer_params=self.optimizer_params or {},
            lr=learning_rate(self.optimizer, self.lr, start.architecture.kind),
            automatic_rate=self.lr == "auto" and self.optimizer == "adam",
            alpha=self.alpha,
            batch_size=batch_size,
            max_epochs=None if self.max_epochs == "auto" else self.max_epochs,
            projection_steps=DEFAULT_STEPS if self.projection_steps == "auto" else self.projection_steps,
            tol=self.tol,
            callbacks=tuple(self.callbacks or ()),
            verbose=max(self.verbose - 1, 0),
            whiten=self.whiten,
            seed=draw_seed(random_state),
            incomplete=start.incomplete,
        )


def _fraction(estimator):
    """Fraction of the samples to hold out."""
    return estimator.validation_fraction if estimator.early_stopping else None


def _validation_split(estimator, X, y, groups):
    """Which samples are held out; None if none are."""
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
    sample = Sample(to_numpy(held_out))
    _check_values(estimator, sample.X)
    return ValidationSplit(sample=sample)


def _fitted_attributes(net, record, X):
    """Return the fitted attributes by name."""
    module = net.module_
    return {
        "net_": net,
        "device_": str(net.device),
        "n_components_": module.architecture.n_components,
        "mean_": asarray_like(module.mean.cpu().numpy().copy(), X),
        "n_iter_": len(record.train_losses),
        "best_epoch_": record.best_epoch,
        "loss_curve_": record.train_losses,
        "validation_scores_": record.valid_scores,
        "validation_epochs_": record.valid_epochs,
    }


@contextmanager
def _unchanged_on_failure(estimator) -> Iterator[None]:
    """Put an estimator's attributes back if the block is left by an error or an interrupt."""
    before = dict(vars(estimator))
    try:
        with np.errstate(under="ignore"):  # numbers too small for a floating-point number are zero
            yield
    except BaseException:
        vars(estimator).clear()
        vars(estimator).update(before)
        raise


def _check(estimator, sample, device, whole=True):
    """Refuse what the constraints of single parameters cannot see."""
    n_samples, n_features = sample.shape
    regularizers = as_regularizers(estimator.regularizer)
    if estimator.n_components > n_features and not regularizers:
        raise ValueError(
            f"n_components={estimator.n_components} must not exceed n_features={n_features}: a bottleneck wider than "
            "the input can copy it. Choose fewer components, or a regularizer that stops the copying."
        )
    if whole and estimator.linear_skip and estimator.n_components > n_samples:
        raise ValueError(
            f"n_components={estimator.n_components} must be between 1 and min(n_samples, n_features)="
            f"{min(n_samples, n_features)}: {n_samples} samples have no more principal directions. "
            "Choose fewer components or pass more samples."
        )
    if estimator.normalization == "batch" and estimator.batch_size == 1 and estimator.max_epochs != 0:
        raise ValueError(
            "normalization='batch' needs batches of at least 2 samples, got batch_size=1. Choose a larger batch_size, "
            "or normalization='layer'."
        )
    _check_values(estimator, sample.X)
    check_dtype_on_device(sample.dtype, device)
    lr = learning_rate(estimator.optimizer, estimator.lr)
    check_optimizer(estimator.optimizer, estimator.optimizer_params or {}, lr)
    check_callbacks(estimator.callbacks or ())


def _check_values(estimator, X):
    """Refuse values that the loss is not for."""
    # A minimum of scipy's sorts a sparse matrix in place, and what is in a file is read once.
    values = X if isinstance(X, np.ndarray) else extremes(X)
    as_loss(estimator.loss).check(values[np.isfinite(values)] if estimator.allow_nan else values)


def _demands(estimator, dtype, device):
    """Describe how a custom module will be used."""
    trained_in = dtype if estimator.optimizer == "lbfgs" else np.float32
    return Demands(
        device,
        torch_dtype(np.dtype(trained_in)) if estimator.max_epochs != 0 else None,
        1 if estimator.batch_size == 1 else 2,
        any(isinstance(one, Contractive) for one in as_regularizers(estimator.regularizer)),
    )


def _architecture(estimator, n_features, seed, demands):
    """Describe the network that the parameters ask for."""
    n_components, kind = int(estimator.n_components), estimator.architecture
    encoder = _layer_sizes(estimator.hidden_layer_sizes, "hidden_layer_sizes")
    if encoder is None:
        encoder = DEFAULT_SIZES if kind == "conv" else automatic_sizes(n_features, n_components)
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
    loss, regularizers, module = as_loss(estimator.loss), as_regularizers(estimator.regularizer), estimator.module
    module, needs = tried_module(module, estimator.module_params or {}, n_features, n_components, seed, demands)
    if module is not None:
        kind = "module"
    elif estimator.linear_skip and estimator.activation == "identity" and not regularizers:
        kind = "pca" if type(loss) is SquaredError else kind  # PCA is the best linear network, by its squared error
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
        link=loss.link,
        variational=any(regularizer.variational for regularizer in regularizers),
        module=module,
        fills=bool(estimator.allow_nan),
        module_needs=needs,
    )


def _layer_sizes(sizes, name):
    """Widths as a tuple; None where they are to be chosen."""
    if sizes is None or (isinstance(sizes, str) and sizes == "auto"):
        return None
    widths = (sizes,) if isinstance(sizes, Integral) else tuple(sizes)
    if not all(isinstance(width, Integral) and width > 0 for width in widths):
        raise ValueError(f"{name} must be 'auto' or hold integers of at least 1, got {sizes!r}.")
    return tuple(int(width) for width in widths)
