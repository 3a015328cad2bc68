"""Untrusted bytes to upright RGB pixels, and pixels to a network's input. Knows no torch."""
