"""Finalists: the short list, their training, and the choice of one."""
