"""Export to ONNX: pipelines by skl2onnx, decoders by themselves.

The networks are written as ONNX operators layer by layer, not traced by ``torch.onnx.export``: a row beyond the reach of
the training rows is encoded with the Jacobian of the decoder, which that exporter does not trace, and onnxruntime lacks
Erf, Elu, Conv and ConvTranspose in float64, for which other formulations stand here.
"""

from skae.onnx._export import export_decoder, register

__all__ = ["export_decoder", "register"]
