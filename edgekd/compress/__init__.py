"""Compression of students: pruning changes the module, quantization the annotations."""
