"""skae: the autoencoder as a scikit-learn transformer, starting at PCA."""

from skae._autoencoder import AutoEncoderTransformer

__all__ = ["AutoEncoderTransformer"]
__version__ = "0.1.0.dev0"
