"""The contract a student has to meet: targets, where they are found, how one inherits another, and the verdict.

A target names a device, the backends allowed on it, the load and the budgets. Everything here is a pure reading of
files and figures; reaching the device is `edgekd.devices`.
"""
