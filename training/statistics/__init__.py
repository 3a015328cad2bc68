"""Metrics, how certain they are, and linear maps in closed form: pure functions on arrays."""
