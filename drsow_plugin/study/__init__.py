"""Which pair to take: N models over the same rows, in N passes, and all their pairs compared."""
