"""Report the progress of a fit to callbacks of scikit-learn and to a progress bar."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

# A fit searches, rehearses the last steps, and takes them on all samples.
PARTS = 3


try:
    from sklearn.callback import CallbackSupportMixin
except ImportError:  # before scikit-learn 1.9

    class _NoContext:
        """Stands for a task that nobody listens to."""

        def subcontext(self, **options):
            """Stands for a task within."""
            return self

        def call_on_fit_task_begin(self, **told):
            """Tell nobody."""
            return self

        def call_on_fit_task_end(self, **told):
            """Tell nobody, who does not want to stop."""
            return False

    class CallbackSupportMixin:  # type: ignore[no-redef]
        """Stands for scikit-learn's mixin where there is none yet."""

        def set_callbacks(self, *callbacks):
            """Refuse scikit-learn's callbacks, which this version does not have.

            Raises
            ------
            ImportError
                Always.
            """
            raise ImportError(
                'set_callbacks needs scikit-learn 1.9 or newer: pip install "scikit-learn>=1.9". Or use verbose=1, or '
                "give skorch callbacks to the parameter callbacks."
            )

        def _init_callback_context(self, **options):
            return _NoContext()


@dataclass(frozen=True)
class EpochReport:
    """What there is to tell after an epoch.

    Attributes
    ----------
    train_loss : float
        Mean loss of the epoch's batches, as a fraction of the variance.
    valid_loss : float or None
        Mean loss of the held-out samples, in the same unit; None where none are looked at.
    best_epoch : int or None
        The epoch that would be kept now; 0 is the start.
    result : callable
        Makes the net and the record of the fit as if it stopped here. Only called where somebody asks for it.
    """

    train_loss: float
    valid_loss: float | None
    best_epoch: int | None
    result: Callable[[], tuple]


class Listener(Protocol):
    """Is told of the parts of a fit, and of the epochs in each of them."""

    def part(self, name: str, n_epochs: int) -> Any:
        """Context manager around a part of at most so many epochs."""

    def epoch_begins(self) -> None:
        """Report that an epoch begins."""

    def epoch_ends(self, report: EpochReport) -> bool:
        """Report that an epoch has ended; return whether to stop this part."""


class Progress:
    """Passes on to all listeners.

    Parameters
    ----------
    listeners : sequence of Listener, default=()
        Who wants to know.
    """

    def __init__(self, listeners: Sequence[Listener] = ()) -> None:
        self.listeners = listeners
        self.stopped = False

    @contextmanager
    def part(self, name: str, n_epochs: int) -> Iterator[None]:
        """Tell of a part of the fit."""
        self.stopped = False
        with ExitStack() as stack:
            for listener in self.listeners:
                stack.enter_context(listener.part(name, n_epochs))
            yield

    def epoch_begins(self) -> None:
        """Tell that an epoch begins."""
        for listener in self.listeners:
            listener.epoch_begins()

    def epoch_ends(self, report: EpochReport) -> None:
        """Tell that an epoch is over, and note whether somebody wants to stop."""
        for listener in self.listeners:
            self.stopped |= listener.epoch_ends(report)


class FitTasks:
    """Tells scikit-learn's callbacks: the fit is a task, each part of it one within, and each epoch one in its part.

    Parameters
    ----------
    estimator : AutoEncoderTransformer
        What is fitted; it holds the callbacks.
    X : {array-like, sparse matrix or array} of shape (n_samples, n_features)
        As it was given to ``fit``. It is its own target.
    metadata : dict
        What else was given to ``fit``, by name; None for what was not.
    """

    def __init__(self, estimator, X, metadata) -> None:
        self.context = estimator._init_callback_context(max_subtasks=PARTS)
        given = {name: value for name, value in metadata.items() if value is not None}
        self.told = {"estimator": estimator, "X": X, "y": X, "metadata": given or None}

    @contextmanager
    def whole(self, attributes: Callable[..., dict]) -> Iterator[None]:
        """Tell of the fit, which gives the estimator its attributes; the function makes them of a net and a record."""
        self.attributes = attributes
        self.context.call_on_fit_task_begin(**self.told)
        yield
        self.context.call_on_fit_task_end(**self.told, reconstruction_attributes={})

    @contextmanager
    def part(self, name: str, n_epochs: int) -> Iterator[None]:
        """Tell of a part of the fit."""
        self.task = self.context.subcontext(task_name=name, max_subtasks=n_epochs)
        self.task.call_on_fit_task_begin(**self.told)
        yield
        self.task.call_on_fit_task_end(**self.told)

    def epoch_begins(self) -> None:
        """Tell that an epoch begins."""
        self.epoch = self.task.subcontext(task_name="epoch").call_on_fit_task_begin(**self.told)

    def epoch_ends(self, report: EpochReport) -> bool:
        """Tell that an epoch is over; true if a callback wants to stop."""
        return self.epoch.call_on_fit_task_end(
            **self.told, reconstruction_attributes=lambda: self.attributes(*report.result())
        )


class EpochBar:
    """A bar for each part of the fit, in a terminal or a notebook."""

    @contextmanager
    def part(self, name: str, n_epochs: int) -> Iterator[None]:
        """Show a bar of at most so many epochs."""
        from tqdm.auto import tqdm

        with tqdm(total=n_epochs, desc=name, unit="epoch", dynamic_ncols=True) as self.bar:
            yield
            self.bar.total = self.bar.n

    def epoch_begins(self) -> None:
        """Nothing is shown before an epoch is over."""

    def epoch_ends(self, report: EpochReport) -> bool:
        """Show the losses; never stop."""
        shown = {"train_loss": f"{report.train_loss:.4f}"}
        if report.valid_loss is not None:
            shown |= {"valid_loss": f"{report.valid_loss:.4f}", "best_epoch": str(report.best_epoch)}
        self.bar.set_postfix(shown, refresh=False)
        self.bar.update()
        return False
