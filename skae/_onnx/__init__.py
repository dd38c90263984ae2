"""Networks as ONNX graphs.

They are written layer by layer, not traced by ``torch.onnx.export``: a row beyond the reach of the training rows is
encoded with the Jacobian of the decoder, which that exporter does not trace, and onnxruntime lacks Erf, Elu, Conv and
ConvTranspose in float64, for which other formulations stand here.
"""
