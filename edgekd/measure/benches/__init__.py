"""Benches (`edgekd bench`): models measured side by side, on one device or several."""
