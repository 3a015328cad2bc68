"""A source to a dataset: parts to learn from, to stop with and to measure with."""
