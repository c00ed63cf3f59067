"""Access to hardware: a device is opened, describes itself, and loads, measures and runs artefacts.

Constructing a device touches nothing. ``open`` takes an exclusive lock and starts the agent there; a session works over
any transport that carries lines and files.
"""
