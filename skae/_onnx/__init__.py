"""Networks as ONNX graphs: functions of tensors are traced, and their operations written as those of ONNX.

``torch.onnx.export`` is not used: it rounds numbers in an expression to single precision, which moves codes by 1e-7 of
the largest, and the conversion takes several times as long.
"""
