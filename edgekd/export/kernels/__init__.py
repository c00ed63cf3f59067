"""Kernels of files: those a runtime will run of a .tflite, .onnx or .xml file, read without loading any runtime."""
