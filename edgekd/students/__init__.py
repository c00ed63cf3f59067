"""Students: what is trained, shrunk and shipped. Families of architectures, their graphs, folding and static counts.

`_protocol` has the records; `student` makes, saves and loads them; `fold` and `graph` show a student as exporters and
quantization see it; `analysis` counts what can be counted without running anything. One file a family.
"""
