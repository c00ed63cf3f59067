"""Augmentations: one transformation in each file, a frozen record that implements `View`.

A view is identified by a seed: how sample i looks depends only on a hash of (seed, i), never on its batch. So a teacher
can process a view once, ahead of time, and the student gets the same pixels later, in any order.
"""
