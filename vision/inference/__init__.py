"""Pixels to vectors and class scores: one protocol, three runtimes."""
