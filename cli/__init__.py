"""Top floor: the `lookalike` commands. Thin: it parses, calls the floors below, and prints."""
