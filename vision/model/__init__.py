"""The model folder as data: what is in it and what it says. Knows no torch."""
