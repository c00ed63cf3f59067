"""Quantization: the precision a student ships in, and the encodings of its tensors.

`stage` is the recipe's step ``quantize``; `ladder` says which precision a student can have on a backend; `observe`,
`calibrate` and `weights` find the encodings; `reference` computes as integer kernels do, for exported files to be
compared with. What is decided here is written in `Annotations`; exporters only apply it.
"""
