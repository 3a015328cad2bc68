"""Encoded pictures: which format, what structure and what it costs to decode. Decodes nothing."""
