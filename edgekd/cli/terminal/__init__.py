"""What a command prints: output, progress, interruption, failures."""
