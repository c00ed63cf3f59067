"""What a device can do, measured once: peaks, overheads, staircases, threads, heat, noise, and a latency table."""
