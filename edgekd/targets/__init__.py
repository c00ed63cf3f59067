"""Targets: the contract a student has to meet, where targets are found, how one inherits another, and the verdict.

A target names a device, the backends allowed on it, the load and the budgets. Everything here only reads files and
figures; reaching the device is `edgekd.devices`.
"""
