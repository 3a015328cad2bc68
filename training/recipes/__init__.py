"""Complete training set-ups: what one is, and those that come along."""
