"""Export of students to files that runtimes load (ONNX, TFLite, OpenVINO), with the checks that they hold.

`converter.Converter` is the entry point: it runs the exporters in a worker process. Nothing here is imported with the
package, and converters are imported in the worker alone.
"""
