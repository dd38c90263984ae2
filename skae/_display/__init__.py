"""Plots of fitted autoencoders, as Display classes that follow the conventions of scikit-learn."""

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
