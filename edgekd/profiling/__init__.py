"""Profile of a device, measured once: peaks, overheads, width sweep, threads, heat, noise, and a latency table."""
