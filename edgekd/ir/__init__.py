"""Plain records that describe a network and what is done to it: no torch, no runtime, no other room.

Archs and spaces (`space`), compression plans and candidates (`plan`), encodings (`encoding`), counted features
(`features`), kernels (`kernels`), the operator table (`operators`), what runtimes support (`support`).
"""
