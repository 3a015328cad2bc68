"""A model folder in, an image of the service out, and what is in it."""
