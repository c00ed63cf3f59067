"""Runs on the device: the standard library, numpy and one runtime, on Python 3.8 or newer.

The agent is shipped as one zip application. Its parent process answers JSON lines and imports neither numpy nor a
runtime; every model is loaded in a worker process of its own, spawned fresh, which imports one runtime, loads that
model and does nothing else. Nothing here imports any other part of edgekd.
"""
