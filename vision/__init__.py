"""Lowest floor: bytes to pixels to unit vectors and class scores. Knows no search and no HTTP."""
