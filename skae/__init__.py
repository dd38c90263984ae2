"""skae: the autoencoder as a scikit-learn transformer, starting at PCA."""

from skae import onnx as onnx
from skae._autoencoder import AutoEncoderTransformer
from skae._display.attribution import AttributionDisplay
from skae._display.bottleneck import BottleneckDisplay, bottleneck_curve
from skae._display.latent import LatentDisplay
from skae._display.loadings import LatentLoadingsDisplay
from skae._display.loss_curve import LossCurveDisplay
from skae._display.reconstruction import ReconstructionDisplay
from skae._display.reconstruction_error import ReconstructionErrorDisplay
from skae._inspection import attributions, loadings, transform_std
from skae._objectives.columns import CategoricalCrossEntropy, ColumnLosses
from skae._objectives.losses import AbsoluteError, BinaryCrossEntropy, Cosine, Huber, Loss, Poisson, SquaredError
from skae._objectives.neighbors import Neighbors
from skae._objectives.regularizer import Regularizer
from skae._objectives.regularizers import Contractive, Denoising, Nested, Sparse, Variational
from skae._objectives.supervised import Supervised
from skae._outliers import AutoEncoderOutlierDetector
from skae._truncation import truncate
from skae._variational import sample
from skae.persistence import load, save

__all__ = [
    "AbsoluteError",
    "AttributionDisplay",
    "AutoEncoderOutlierDetector",
    "AutoEncoderTransformer",
    "BinaryCrossEntropy",
    "BottleneckDisplay",
    "CategoricalCrossEntropy",
    "ColumnLosses",
    "Contractive",
    "Cosine",
    "Denoising",
    "Huber",
    "LatentDisplay",
    "LatentLoadingsDisplay",
    "Loss",
    "LossCurveDisplay",
    "Neighbors",
    "Nested",
    "Poisson",
    "ReconstructionDisplay",
    "ReconstructionErrorDisplay",
    "Regularizer",
    "Sparse",
    "SquaredError",
    "Supervised",
    "Variational",
    "attributions",
    "bottleneck_curve",
    "load",
    "loadings",
    "sample",
    "save",
    "transform_std",
    "truncate",
]
__version__ = "0.1.0"
