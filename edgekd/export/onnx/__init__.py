"""ONNX export, for ONNX Runtime."""
