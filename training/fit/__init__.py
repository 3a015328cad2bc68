"""The loop and everything it steps."""
