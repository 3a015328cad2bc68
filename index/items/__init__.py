"""What an item is, what it is called, and what a filter says of it."""
