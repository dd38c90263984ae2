"""What training minimises and what disturbs it."""

from skae._objectives.criterion import AnyCriterion, Criterion, OfPresent, PooledSquaredError, squares_of_present
from skae._objectives.losses import LOSSES, Loss, SquaredError, as_loss
from skae._objectives.objective import Objective
from skae._objectives.regularizers import REGULARIZERS, Regularizer, as_regularizers
from skae._objectives.stages import STAGES, Displacement, GaussianNoise, Regularisation

__all__ = [
    "LOSSES",
    "REGULARIZERS",
    "STAGES",
    "AnyCriterion",
    "Criterion",
    "Displacement",
    "GaussianNoise",
    "Loss",
    "Objective",
    "OfPresent",
    "PooledSquaredError",
    "Regularisation",
    "Regularizer",
    "SquaredError",
    "as_loss",
    "as_regularizers",
    "squares_of_present",
]
