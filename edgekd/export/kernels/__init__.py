"""Files as kernels: what a runtime will run of a .tflite, .onnx or .xml file, read without loading any runtime."""
