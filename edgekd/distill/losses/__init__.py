"""Losses of distillation: one loss in each file, a frozen record of its options.

To add one: subclass `Loss` (``_protocol.py``), register it under the entry-point group ``edgekd.losses``, and run
``edgekd.testing.contracts.loss`` on it. ``combined.py`` reads ``loss: {kd: {...}, ce: {...}}`` and adds them up.
"""
