"""Report the progress of a fit to callbacks of scikit-learn and to a progress bar."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

# Largest number of parts of a fit: the search, a trial of the tuning, and the tuning on all samples.
PARTS = 3


try:
    from sklearn.callback import CallbackSupportMixin
except ImportError:  # before scikit-learn 1.9

    class _NoContext:
        """Callback context without callbacks."""

        def subcontext(self, **options: Any) -> "_NoContext":
            """Return the context of a subtask."""
            return self

        def call_on_fit_task_begin(self, **arguments: Any) -> "_NoContext":
            """Call no callbacks."""
            return self

        def call_on_fit_task_end(self, **arguments: Any) -> bool:
            """Call no callbacks, and do not stop."""
            return False

    class CallbackSupportMixin:  # type: ignore[no-redef]
        """Replacement for the mixin of newer versions of scikit-learn."""

        def set_callbacks(self, *callbacks: Any) -> None:
            """Raise an error, because this version of scikit-learn has no callbacks.

            Raises
            ------
            ImportError
                Always.
            """
            raise ImportError(
                'set_callbacks needs scikit-learn 1.9 or newer: pip install "scikit-learn>=1.9". Or use verbose=1, or '
                "give skorch callbacks to the parameter callbacks."
            )

        def _init_callback_context(self, **options: Any) -> _NoContext:
            return _NoContext()


@dataclass(frozen=True)
class EpochReport:
    """State of a fit after an epoch.

    Attributes
    ----------
    train_loss : float
        Mean loss of the epoch's batches, as a fraction of the variance.
    valid_loss : float or None
        Mean loss of the held-out samples, in the same unit, or None if none are evaluated.
    best_epoch : int or None
        The epoch that would be kept now; 0 is the start.
    result : callable
        Returns the net and the record of the fit as if it stopped here. It takes time, and is only called if a callback
        needs it.
    """

    train_loss: float
    valid_loss: float | None
    best_epoch: int | None
    result: Callable[[], tuple]


class Listener(Protocol):
    """Interface of objects that are notified of the parts of a fit and of their epochs."""

    def part(self, name: str, n_epochs: int) -> Any:
        """Return a context manager for a part with up to ``n_epochs`` epochs."""

    def epoch_begins(self) -> None:
        """Notify that an epoch begins."""

    def epoch_ends(self, report: EpochReport) -> bool:
        """Notify that an epoch has ended, and return whether to stop this part."""


class Progress:
    """Notifies all listeners.

    Parameters
    ----------
    listeners : sequence of Listener, default=()
        The listeners.
    """

    def __init__(self, listeners: Sequence[Listener] = ()) -> None:
        self.listeners = listeners
        self.stopped = False

    @contextmanager
    def part(self, name: str, n_epochs: int) -> Iterator[None]:
        """Notify of a part of the fit."""
        self.stopped = False
        with ExitStack() as stack:
            for listener in self.listeners:
                stack.enter_context(listener.part(name, n_epochs))
            yield

    def epoch_begins(self) -> None:
        """Notify that an epoch begins."""
        for listener in self.listeners:
            listener.epoch_begins()

    def epoch_ends(self, report: EpochReport) -> bool:
        """Notify that an epoch has ended, and return whether a listener stops this part."""
        for listener in self.listeners:
            self.stopped |= listener.epoch_ends(report)
        return self.stopped


class FitTasks:
    """Calls scikit-learn's callbacks. The fit is a task, its parts are subtasks, and so are the epochs of a part.

    Parameters
    ----------
    estimator : AutoEncoderTransformer
        The estimator, which has the callbacks.
    X : {array-like, sparse matrix or array} of shape (n_samples, n_features)
        Argument of ``fit``, which is also the target.
    metadata : dict
        Other arguments of ``fit`` by name; None for those that were not passed.
    """

    def __init__(self, estimator: Any, X: Any, metadata: dict[str, Any]) -> None:
        self.context = estimator._init_callback_context(max_subtasks=PARTS)
        given = {name: value for name, value in metadata.items() if value is not None}
        self.arguments = {"estimator": estimator, "X": X, "y": X, "metadata": given or None}

    @contextmanager
    def whole(self, attributes: Callable[..., dict]) -> Iterator[None]:
        """Notify of the whole fit. ``attributes`` returns the fitted attributes for a net and a record."""
        self.attributes = attributes
        self.context.call_on_fit_task_begin(**self.arguments)
        yield
        self.context.call_on_fit_task_end(**self.arguments, reconstruction_attributes={})

    @contextmanager
    def part(self, name: str, n_epochs: int) -> Iterator[None]:
        """Notify of a part of the fit."""
        self.task = self.context.subcontext(task_name=name, max_subtasks=n_epochs)
        self.task.call_on_fit_task_begin(**self.arguments)
        yield
        self.task.call_on_fit_task_end(**self.arguments)

    def epoch_begins(self) -> None:
        """Notify that an epoch begins."""
        self.epoch = self.task.subcontext(task_name="epoch").call_on_fit_task_begin(**self.arguments)

    def epoch_ends(self, report: EpochReport) -> bool:
        """Notify that an epoch has ended, and return whether a callback stops this part."""
        return self.epoch.call_on_fit_task_end(
            **self.arguments, reconstruction_attributes=lambda: self.attributes(*report.result())
        )


class EpochBar:
    """Progress bar for each part of the fit, in a terminal or a notebook."""

    @contextmanager
    def part(self, name: str, n_epochs: int) -> Iterator[None]:
        """Show a bar for up to ``n_epochs`` epochs."""
        from tqdm.auto import tqdm

        with tqdm(total=n_epochs, desc=name, unit="epoch", dynamic_ncols=True) as self.bar:
            yield
            self.bar.total = self.bar.n

    def epoch_begins(self) -> None:
        """Do nothing: the bar changes at the end of an epoch."""

    def epoch_ends(self, report: EpochReport) -> bool:
        """Show the losses, and do not stop."""
        shown = {"train_loss": f"{report.train_loss:.4f}"}
        if report.valid_loss is not None:
            shown |= {"valid_loss": f"{report.valid_loss:.4f}", "best_epoch": str(report.best_epoch)}
        self.bar.set_postfix(shown, refresh=False)
        self.bar.update()
        return False
