"""Records that describe a network and its compression: no torch, no runtime, no other room.

Archs and spaces (`space`), compression plans and candidates (`plan`), encodings (`encoding`), static features
(`features`), kernels (`kernels`), the operator table (`operators`), runtime support (`support`).
"""
