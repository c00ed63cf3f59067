"""The Python surface of edgekd: one function a command."""

from __future__ import annotations
