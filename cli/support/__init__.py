"""What several commands share: options, progress, checks."""
