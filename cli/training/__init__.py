"""`lookalike train`: its options, and both ways to a model."""
