"""Quantization: the precision of a student, and the encodings of its tensors.

`stage` is the recipe stage ``quantize``; `precision_support` checks which precisions a student can have on a backend;
`observe`, `calibrate` and `weights` find the encodings; `reference` simulates integer kernels, to compare exported
files with.
Decisions are recorded in `Annotations`; exporters only apply them.
"""
