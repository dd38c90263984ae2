"""Pictures of fitted autoencoders, each one class by scikit-learn's conventions for a Display."""

from skae._display.bottleneck import BottleneckDisplay
from skae._display.latent import LatentDisplay
from skae._display.loadings import LatentLoadingsDisplay
from skae._display.loss_curve import LossCurveDisplay
from skae._display.reconstruction import ReconstructionDisplay

__all__ = [
    "BottleneckDisplay",
    "LatentDisplay",
    "LatentLoadingsDisplay",
    "LossCurveDisplay",
    "ReconstructionDisplay",
]
