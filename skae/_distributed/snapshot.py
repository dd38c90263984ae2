"""Files with the state of a fit, from which it continues after an interruption."""

import shutil
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from skae._distributed.group import GroupRanks
from skae._training.journal import Journal


class Snapshots(Journal):
    """Record of the runs of a fit in files.

    A fit with the same samples, parameters and number of processes goes through the same runs. Those that were
    completed are not repeated: their final states are read. Each process has files of its own, because random numbers
    differ.

    Parameters
    ----------
    directory : str or Path
        Where the files are. It is created if it does not exist.
    ranks : GroupRanks
        The processes.
    inputs : object
        Parameters and numbers of samples. Files of a fit with others are ignored.
    """

    def __init__(self, directory: str | Path, ranks: GroupRanks, inputs: Any) -> None:
        self.ranks = ranks
        self.n_trainers = 0
        self.directory = Path(directory) / f"{zlib.crc32(repr(inputs).encode()):08x}" / f"rank{ranks.rank}"
        self.directory.mkdir(parents=True, exist_ok=True)

    def new_trainer(self) -> int:
        self.n_trainers += 1
        return self.n_trainers

    def load(self, run: tuple[int, int]) -> tuple[int, bool, Any] | None:
        # A process may have been ended before it wrote the last epoch of the others, but not before the one before.
        epoch = -int(self.ranks.max(-max(self._epochs(run), default=0)))
        if epoch == 0:
            return None
        known = torch.load(self._path(run, epoch), weights_only=True)
        return epoch, known["completed"], known["state"]

    def save(self, run: tuple[int, int], n_epochs: int, completed: bool, state: Callable[[], Any]) -> None:
        path = self._path(run, n_epochs)
        torch.save({"completed": completed, "state": state()}, path.with_suffix(".new"))
        path.with_suffix(".new").replace(path)
        for epoch in self._epochs(run):
            if epoch < n_epochs - 1:
                self._path(run, epoch).unlink()

    def remove(self) -> None:
        """Remove the files of this process."""
        shutil.rmtree(self.directory, ignore_errors=True)

    def _path(self, run: tuple[int, int], epoch: int) -> Path:
        return self.directory / f"trainer{run[0]}_run{run[1]}_epoch{epoch}.pt"

    def _epochs(self, run: tuple[int, int]) -> list[int]:
        """Return the epochs of a run of which there are files."""
        paths = self.directory.glob(f"trainer{run[0]}_run{run[1]}_epoch*.pt")
        return [int(path.stem.rpartition("epoch")[2]) for path in paths]
