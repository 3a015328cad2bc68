"""Lowest floor: files that survive a power cut, JSON with a checksum, processes."""
