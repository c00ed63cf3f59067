"""Students: families of architectures, their graphs, BatchNorm folding and static analysis.

`_protocol` has the records; `student` builds, saves and loads them; `fold` and `graph` show a student as exporters and
quantization see it; `analysis` counts parameters, multiply-adds and memory without running anything. One file for each
family.
"""
