"""What can be found at one moment, and how it follows the log of operations."""
