"""Fakes and contract suites, shipped for people who write plugins. Nothing else in edgekd imports them."""
