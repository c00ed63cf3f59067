"""How a run ends: its summary, the nearest candidate where nothing fits, and explanations."""
