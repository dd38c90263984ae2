"""Record of the runs of a fit, by which it continues after an interruption."""

from typing import Any


class Journal:
    """Record of the runs of a fit. This base class keeps nothing."""

    def new_trainer(self) -> int:
        """Return the number of a trainer, which is the same in a repetition of the fit."""
        return 0

    def load(self, run: tuple[int, int]) -> tuple[int, bool, Any] | None:
        """Return the number of epochs of a run that were completed, whether the run was, and its state; or None."""
        return None

    def save(self, run: tuple[int, int], n_epochs: int, completed: bool, state: Any) -> None:
        """Keep the state of a run after an epoch. ``state`` returns it."""
