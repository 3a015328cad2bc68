"""`lookalike index …`: galleries built, kept up, moved."""
