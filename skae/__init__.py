"""skae: the autoencoder as a scikit-learn transformer, starting at PCA."""

from skae import onnx as onnx
from skae._autoencoder import AutoEncoderTransformer
from skae._display.bottleneck import BottleneckDisplay, bottleneck_curve
from skae._display.latent import LatentDisplay
from skae._display.loadings import LatentLoadingsDisplay
from skae._display.loss_curve import LossCurveDisplay
from skae._display.reconstruction import ReconstructionDisplay
from skae._objectives.losses import AbsoluteError, BinaryCrossEntropy, Cosine, Huber, Loss, Poisson, SquaredError
from skae._objectives.regularizers import Contractive, Denoising, Nested, Regularizer, Sparse, Variational
from skae._outliers import AutoEncoderOutlierDetector
from skae._variational import sample, transform_std
from skae.persistence import load, save

__all__ = [
    "AbsoluteError",
    "AutoEncoderOutlierDetector",
    "AutoEncoderTransformer",
    "BinaryCrossEntropy",
    "BottleneckDisplay",
    "Contractive",
    "Cosine",
    "Denoising",
    "Huber",
    "LatentDisplay",
    "LatentLoadingsDisplay",
    "Loss",
    "LossCurveDisplay",
    "Nested",
    "Poisson",
    "ReconstructionDisplay",
    "Regularizer",
    "Sparse",
    "SquaredError",
    "Variational",
    "bottleneck_curve",
    "load",
    "sample",
    "save",
    "transform_std",
]
__version__ = "0.1.0.dev0"
