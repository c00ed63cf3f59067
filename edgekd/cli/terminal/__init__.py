"""Terminal output of a command: answer, progress, interruption, failures."""
