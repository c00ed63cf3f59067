"""Files for ONNX Runtime."""
