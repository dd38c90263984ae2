"""The skorch net that runs the training loop."""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import clone
from skorch import NeuralNet
from skorch.callbacks import (
    Callback,
    EarlyStopping,
    EpochTimer,
    GradientNormClipping,
    LRScheduler,
    ParamMapper,
    PassthroughScoring,
    PrintLog,
)
from skorch.helper import predefined_split
from skorch.history import History
from skorch.utils import to_tensor
from torch import Tensor, nn

from skae._data.dataset import Hiding, PerSampleBuffer, SampleBatches, SampleDataset
from skae._data.ranks import ALONE, Ranks
from skae._network.architecture import Architecture
from skae._network.autoencoder import AutoEncoder
from skae._network.layers import hold_statistics, trainable
from skae._network.projection import DEFAULT_STEPS
from skae._network.scaling import Projection, ScaledAutoEncoder, build
from skae._objectives.criterion import PooledSquaredError
from skae._objectives.losses import LOSSES, Loss, SquaredError
from skae._objectives.objective import Objective
from skae._objectives.regularizer import Regularizer
from skae._objectives.regularizers import REGULARIZERS, Nested, penalizes_codes
from skae._training.callbacks import ExponentialMovingAverage, FiniteLoss, StopTraining
from skae._training.journal import Journal
from skae._training.optimizers import optimizer_of
from skae._training.progress import Progress
from skae._training.schedule import DifferenceAugmentation
from skae._utils import available_devices, canonical_device, gradients_on, seeded_generator

# Default number of samples per step. With 128, a fit takes half of the time and the mean score is .008 lower.
BATCH_SIZE = 256
# Largest norm of a gradient where regularizers add to the loss: their rare spikes undo epochs of training.
LARGEST_GRADIENT = 0.1
# Number of inputs above which the first layer learns more slowly.
FEW_INPUTS = 64


@dataclass(frozen=True)
class TrainingConfig:
    """Parameters of a training.

    They are those of the estimator, besides ``unexplained_variance_ratio``, the fraction of the variance that PCA does
    not explain, and ``incomplete``, whether the training samples have missing values.
    """

    loss: Loss = field(default_factory=SquaredError)
    regularizers: Sequence[Regularizer] = ()
    optimizer: str | type = "adam"
    optimizer_params: Mapping[str, Any] = field(default_factory=dict)
    lr: float = 3e-3
    automatic_rate: bool = False
    alpha: float = 0.0
    batch_size: int = 256
    max_epochs: int | None = 1
    tol: float = 0.0
    callbacks: Sequence = ()
    verbose: int = 0
    seed: int = 0
    unexplained_variance_ratio: float = 1.0
    incomplete: bool = False
    whiten: bool = False
    nested: Nested | None = None
    projection_steps: int = DEFAULT_STEPS
    progress: Progress = field(default_factory=Progress)
    journal: Journal = field(default_factory=Journal)


class ReconstructionNet(NeuralNet):
    """skorch net whose targets are the samples themselves.

    It iterates over `SampleBatches`, evaluates averaged weights, adds the L2 penalty to the loss for optimizers without
    weight decay, and distinguishes early stopping from interrupts by the user. ``predict`` returns reconstructions.
    """

    def __init__(
        self,
        *args: Any,
        dataset: type = SampleDataset,
        shuffler: torch.Generator | None = None,
        augment: DifferenceAugmentation | None = None,
        averaging: ExponentialMovingAverage | None = None,
        penalty: float = 0.0,
        objective: Objective | None = None,
        hiding: tuple[Hiding | None, Hiding | None] = (None, None),
        ranks: Ranks = ALONE,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, dataset=dataset, **kwargs)
        self.objective = objective
        self.shuffler = shuffler
        self.augment = augment
        self.averaging = averaging
        self.penalty = penalty
        self.hiding = hiding
        self.ranks = ranks

    def __repr__(self) -> str:
        return f"<{self.module_.architecture.sizes}>" if hasattr(self, "module_") else object.__repr__(self)

    @property
    def _default_callbacks(self) -> list:
        scores = {"train_loss": True, "valid_loss": False}
        losses = [(name, PassthroughScoring(name=name, on_train=on_train)) for name, on_train in scores.items()]
        log = [("print_log", PrintLog())] if self.verbose else []
        return [("epoch_timer", EpochTimer()), *losses, ("finite_loss", FiniteLoss()), *log]

    def get_iterator(self, dataset: SampleDataset, training: bool = False) -> SampleBatches:
        """Return an iterable of batches, shuffled in training."""
        announce = None if self.objective is None else self.objective.begin_batch
        if training:
            return SampleBatches(
                dataset, self.batch_size, self.shuffler, self.augment, self.hiding[0], announce=announce
            )
        return SampleBatches(dataset, self.batch_size, hiding=self.hiding[1], announce=announce)

    def run_single_epoch(
        self, iterator: SampleBatches | None, training: bool, prefix: str, step_fn: Callable, **fit_params: Any
    ) -> None:
        """Run one epoch, with averaged weights on held-out samples."""
        if training or iterator is None:
            if training:
                super()._set_training(True)
                hold_statistics(self.module_)
            self.counts_: list[int] = []
            weights = [one for one in self.module_.parameters() if one.requires_grad] if self.ranks.size > 1 else []
            if training and weights and iterator is not None and not isinstance(self.optimizer_, torch.optim.LBFGS):
                self.ranks.expect(len(iterator), sum(one.numel() for one in weights) + 2, weights[0].dtype)
            super().run_single_epoch(iterator, training, prefix, step_fn, **fit_params)
            if training and self.ranks.size > 1:  # the loss of an epoch weighs its batches by these
                batches = self.history[-1]["batches"]
                counts = self.counts_ if len(self.counts_) == len(batches) else [1]  # a line search has more
                for batch, count in zip(batches, counts, strict=True):
                    batch["train_batch_size"] = count
            if training and self.objective is not None:
                self.objective.n_epochs += 1
            return
        if self.objective is not None:
            self.objective.rewind()
        with self.evaluation():
            super().run_single_epoch(iterator, training, prefix, step_fn, **fit_params)
        if self.ranks.size > 1:
            loss = float(iterator.dataset.sample.mean(self.sample_losses_.array))
            for batch in self.history[-1]["batches"]:
                batch.update(valid_loss=loss, valid_batch_size=1)

    def train_step_single(self, batch: tuple[Tensor, Tensor], **fit_params: Any) -> dict:
        """Compute the loss of a batch and its gradient, over the parts of the batch of all processes."""
        if self.ranks.size == 1:
            return super().train_step_single(batch, **fit_params)
        self._set_training(True)
        count, loss, x_hat = len(batch[0]), torch.zeros(()), batch[1]
        if count > 0:
            x_hat = self.infer(batch[0], **fit_params)
            loss = self.get_loss(x_hat, batch[1], X=batch[0], training=True) * count
            loss.backward()
        weights = [one for one in self.module_.parameters() if one.requires_grad]
        gradients = [torch.zeros_like(one) if one.grad is None else one.grad for one in weights]
        sums = torch.stack([loss.detach().to(weights[0]), weights[0].new_tensor(count)])
        flat = self.ranks.sum_gradients([*gradients, sums])
        total = max(float(flat[-1]), 1.0)
        flat /= total
        parts = flat[:-2].split([one.numel() for one in weights])
        for weight, part in zip(weights, parts, strict=True):
            weight.grad = part.view_as(weight)
        self.counts_.append(round(total))
        return {"loss": flat[-2].clone(), "y_pred": x_hat}

    def infer(self, x: Tensor, **fit_params: Any) -> Any:
        """Return the reconstructions of a batch, with regularizers also their penalties."""
        if self.objective is None:
            return super().infer(x, **fit_params)
        return self.objective(self.module_, to_tensor(x, device=self.device))

    def _set_training(self, training: bool = True) -> None:
        # skorch calls it before every step. To visit all modules each time would take a tenth of a small step.
        if self.module_.training != training:
            super()._set_training(training)

    def validation_step(self, batch: tuple[Tensor, Tensor], **fit_params: Any) -> dict:
        """Reconstruct a held-out batch, and store the loss of each sample."""
        step = super().validation_step(batch, **fit_params)
        x_hat, penalty = step["y_pred"] if self.objective is not None else (step["y_pred"], 0.0)
        losses = self.criterion_.per_sample(x_hat, batch[1]) + penalty
        if self.valid_weights_ is not None:
            step["loss"] = self._weighted(losses, self.valid_weights_)
        self.sample_losses_.append(losses)
        return step

    def _weighted(self, losses: Tensor, weights: NDArray) -> Tensor:
        """Return the mean loss of a batch such that the mean over all batches is the weighted mean over the samples."""
        start = self.sample_losses_.n_written
        relative = weights[start : start + len(losses)] / weights.mean()
        return (losses * torch.from_numpy(relative).to(losses)).mean()

    def on_epoch_begin(self, net: Any, dataset_train: Any = None, dataset_valid: Any = None, **kwargs: Any) -> None:
        """Reset the losses of the held-out samples."""
        super().on_epoch_begin(net, dataset_train, dataset_valid, **kwargs)
        n_samples = 0 if dataset_valid is None else len(dataset_valid)
        self.valid_weights_: NDArray | None = None if dataset_valid is None else dataset_valid.sample.weights
        self.sample_losses_ = PerSampleBuffer(n_samples)

    def get_loss(self, y_pred: Any, y_true: Tensor, X: Any = None, training: bool = False) -> Tensor:
        """Compute the loss, in training with the L2 penalty if the optimizer has no weight decay."""
        x_hat, penalty = y_pred if isinstance(y_pred, tuple) else (y_pred, None)
        loss = self.criterion_(x_hat, y_true)
        if penalty is not None:
            loss = loss + penalty.mean()
        if training and self.penalty:
            loss = loss + 0.5 * self.penalty * sum(weight.square().sum() for weight in trainable(self.module_))
        if training and not loss.requires_grad:
            n_weights = sum(weight.numel() for weight in self.module_.parameters())
            raise ValueError(
                f"Nothing is left to train: all {n_weights} weights are frozen. Leave some free in module or in the "
                "patterns of Freezer, choose linear_skip=True, or max_epochs=0."
            )
        return loss

    def _step_optimizer(self, step_fn: Callable) -> None:
        """Take a step. Parameters that were frozen after the first step do not change with L-BFGS either."""
        lbfgs = isinstance(self.optimizer_, torch.optim.LBFGS)
        frozen = [one for one in self.module_.parameters() if not one.requires_grad] if lbfgs else []
        before = [one.detach().clone() for one in frozen]
        super()._step_optimizer(step_fn)
        with torch.no_grad():
            for one, value in zip(frozen, before, strict=True):
                one.copy_(value)

    def notify(self, method_name: str, **cb_kwargs: Any) -> None:
        """Call the callbacks, and turn the interrupt of skorch's early stopping into `StopTraining`."""
        getattr(self, method_name)(self, **cb_kwargs)
        for callback in self._listeners(method_name):
            try:
                getattr(callback, method_name)(self, **cb_kwargs)
            except KeyboardInterrupt:
                if isinstance(callback, EarlyStopping) and callback.misses_ >= callback.patience:
                    raise StopTraining from None
                raise

    def initialize_callbacks(self) -> NeuralNet:
        """Initialize the callbacks, and reset which of them override which method."""
        self._listening: dict[str, list[Callback]] = {}
        return super().initialize_callbacks()

    def _listeners(self, method_name: str) -> list[Callback]:
        """Return the callbacks that override a method; to call all of them would take a twentieth of a small step."""
        if method_name not in self._listening:
            idle = getattr(Callback, method_name)
            everyone = [callback for _, callback in self.callbacks_]
            self._listening[method_name] = [one for one in everyone if _function(one, method_name) is not idle]
        return self._listening[method_name]

    @contextmanager
    def evaluation(self) -> Iterator[AutoEncoder]:
        """Use averaged weights and evaluation mode inside the block."""
        self.module_.eval()
        if self.averaging is not None:
            self.averaging.exchange()
        try:
            yield self.module_
        finally:
            if self.averaging is not None:
                self.averaging.exchange()


def build_net(
    module: AutoEncoder,
    config: TrainingConfig,
    callbacks: Sequence[Callback] = (),
    valid: SampleDataset | None = None,
    averaging: ExponentialMovingAverage | None = None,
    augment: DifferenceAugmentation | None = None,
    criterion: nn.Module | None = None,
    objective: Objective | None = None,
    hiding: tuple[Hiding | None, Hiding | None] = (None, None),
    ranks: Ranks = ALONE,
) -> ReconstructionNet:
    """Return an initialized skorch net for a network."""
    optimizer, options, decays = optimizer_of(config.optimizer, config.optimizer_params, config.alpha)
    clipping = [] if objective is None or config.optimizer == "lbfgs" else [GradientNormClipping(LARGEST_GRADIENT)]
    groups = first_layer_group(module, config)
    if groups:
        options = {**options, "param_groups": groups}
    net = ReconstructionNet(
        module,
        PooledSquaredError() if criterion is None else criterion,
        optimizer=optimizer,
        lr=config.lr,
        batch_size=config.batch_size,
        max_epochs=config.max_epochs or 1,
        train_split=None if valid is None else predefined_split(valid),
        callbacks=[*clipping, *callbacks],
        verbose=config.verbose,
        device=canonical_device(next(module.buffers()).device),
        shuffler=seeded_generator(ranks.seed(config.seed)),
        augment=augment,
        averaging=averaging,
        objective=objective,
        hiding=hiding,
        ranks=ranks,
        penalty=0.0 if decays else config.alpha,
        **{f"optimizer__{name}": value for name, value in options.items()},
    )
    return net.initialize()


def first_layer_group(module: AutoEncoder, config: TrainingConfig) -> list:
    """Return parameter groups with a lower learning rate for a first layer with many inputs.

    They are used with the default optimizer and learning rate and for dense networks.
    """
    architecture = getattr(module, "architecture", None)
    if not config.automatic_rate or architecture is None or architecture.kind not in ("dense", "tied"):
        return []
    factor = FEW_INPUTS / architecture.n_features
    names = ("encoder.0.*", "linear_encoder")
    return [(name, {"lr": config.lr * factor}) for name in names] if factor < 1 else []


class _NoOptimizer:
    """Placeholder for the optimizer that skorch needs; a fitted network may have no trainable parameters."""

    def __init__(self, params: Any, lr: float) -> None:
        self.lr = lr


def predicting_net(module: ScaledAutoEncoder, history: Sequence[dict] = ()) -> ReconstructionNet:
    """Return a net for predictions, which keeps only the history of the training."""
    net = build_net(module.eval(), TrainingConfig(optimizer=_NoOptimizer))
    net.history_ = History(dict(epoch) for epoch in history)
    return net


def epochs_of(net: NeuralNet) -> list[dict]:
    """Return the history of each epoch without that of the batches."""
    return [{key: value for key, value in epoch.items() if key != "batches"} for epoch in net.history]


def as_columns(epochs: list[dict]) -> list[dict] | dict[str, Any]:
    """Convert a history to one array or list per entry, which takes a tenth of the size in a file."""
    if not epochs or any(epoch.keys() != epochs[0].keys() for epoch in epochs):
        return epochs
    columns: dict[str, Any] = {name: [epoch[name] for epoch in epochs] for name in epochs[0]}
    for name, values in columns.items():
        kinds = {type(value.item() if isinstance(value, np.generic) else value) for value in values}
        if len(kinds) == 1 and kinds <= {bool, int, float}:
            columns[name] = np.array(values)
    return columns


def as_epochs(history: list[dict] | dict[str, Any]) -> list[dict]:
    """Convert the result of `as_columns` back to a history."""
    if isinstance(history, list):
        return history
    columns = [values.tolist() if isinstance(values, np.ndarray) else values for values in history.values()]
    return [dict(zip(history, values, strict=True)) for values in zip(*columns, strict=True)]


def of_every_training(callbacks: Sequence) -> list:
    """Return copies of the callbacks that change the result of training, which every fold needs.

    These are learning rate schedules, callbacks that map parameters such as `skorch.callbacks.Freezer`, and callbacks
    with a method for gradients such as `skorch.callbacks.GradientNormClipping`.
    """
    return [_fresh(entry) for entry in callbacks if _changes_training(_instance(entry))]


def _changes_training(callback: Any) -> bool:
    cls = callback if isinstance(callback, type) else type(callback)
    changes = issubclass(cls, LRScheduler | ParamMapper)
    return changes or _function(callback, "on_grad_computed") is not Callback.on_grad_computed


def _fresh(entry: Any) -> Any:
    """Copy an entry of ``callbacks``. A class is returned unchanged, because each net instantiates it."""
    if isinstance(entry, tuple):
        return entry[0], _fresh(entry[1])
    if isinstance(entry, type):
        return entry
    try:
        return clone(entry)
    except (TypeError, RuntimeError):  # not a scikit-learn estimator
        return copy.deepcopy(entry)


def sets_rate(callbacks: Sequence) -> bool:
    """Return whether no callback is a learning rate schedule."""
    kinds = (one if isinstance(one, type) else type(one) for one in map(_instance, callbacks))
    return not any(issubclass(kind, LRScheduler) for kind in kinds)


def check_callbacks(callbacks: Sequence) -> None:
    """Check the parameter ``callbacks``.

    Raises
    ------
    TypeError
        If an entry is not a skorch callback, a class of one, or a pair of a name and either of them.
    """
    for entry in callbacks:
        callback = _instance(entry)
        if not (isinstance(callback, Callback) or (isinstance(callback, type) and issubclass(callback, Callback))):
            raise TypeError(
                f"callbacks must hold skorch callbacks, their classes, or pairs of a name and either, got {entry!r}."
            )


def _function(callback: Any, name: str) -> Any:
    """Return the function of a method."""
    method = getattr(callback, name)
    return getattr(method, "__func__", method)


def _instance(entry: Any) -> Any:
    """Return the callback of an entry, which may be a pair of a name and a callback."""
    return entry[1] if isinstance(entry, tuple) and len(entry) == 2 else entry


def net_to_dict(net: ReconstructionNet) -> dict:
    """Convert a net to plain values and NumPy arrays."""
    module = net.module_
    projection = module.projection
    return {
        "architecture": asdict(module.architecture),
        "projection": {
            "n_steps": projection.n_steps,
            "loss": _described(projection.loss, LOSSES),
            "penalties": [_described(one, REGULARIZERS) for one in projection.penalties if penalizes_codes(one)],
            "incomplete": projection.incomplete,
        },
        "arrays": {name: value.cpu().numpy() for name, value in module.state_dict().items()},
        "history": as_columns(epochs_of(net)),
    }


def _described(part: Any, table: Mapping[str, type]) -> Any:
    """Convert a loss or regularizer of this package to its name and parameters; others are returned unchanged."""
    names = [name for name, kind in table.items() if kind is type(part)]
    return [names[0], part.get_params()] if names else part


def _rebuilt(described: Any, table: Mapping[str, type]) -> Any:
    """Convert the result of `_described` back."""
    return table[described[0]](**described[1]) if isinstance(described, list) else described


@gradients_on()
def net_from_dict(frozen: dict, device: str) -> ReconstructionNet:
    """Rebuild a net on its device, or on the CPU if that is not available."""
    module = network_from_dict(frozen)
    return predicting_net(module.to(device if device in available_devices() else "cpu"), as_epochs(frozen["history"]))


@gradients_on()
def network_from_dict(frozen: dict) -> ScaledAutoEncoder:
    """Rebuild the network of a net on the CPU."""
    tensors = {name: torch.from_numpy(array.copy()) for name, array in frozen["arrays"].items()}
    module = build(Architecture(**frozen["architecture"]), tensors["mean"].dtype).eval()
    module.load_state_dict(tensors)
    projection = frozen["projection"]
    module.projection = Projection(
        projection["n_steps"],
        _rebuilt(projection["loss"], LOSSES),
        tuple(_rebuilt(one, REGULARIZERS) for one in projection["penalties"]),
        projection["incomplete"],
    )
    module.keep_double()
    return module
