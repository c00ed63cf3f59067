"""edgekd: distil a large model into a student that was measured to meet a device's contract.

The Python surface is :mod:`edgekd.api`. Importing this package loads neither torch nor a runtime.
"""

from __future__ import annotations

__all__ = ["__version__"]

__version__ = "0.1.0"
