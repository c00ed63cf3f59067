"""What a student is trained to make small: one loss a file, each a frozen record of its options.

To add one: subclass `Loss` (``_protocol.py``), name it under the entry-point group ``edgekd.losses``, and run
``edgekd.testing.contracts.loss`` on it. ``combined.py`` reads ``loss: {kd: {...}, ce: {...}}`` and adds them up.
"""
