"""Files that runtimes load: students written as ONNX, TFLite or OpenVINO, and the checks that they hold.

`converter.Converter` is the way in: it runs the exporters in a worker process. Nothing here is imported with the
package, and converters are imported in the worker alone.
"""
