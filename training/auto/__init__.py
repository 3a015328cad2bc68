"""The recipe `auto`: what is tried on one's own photos, and the best of it."""
