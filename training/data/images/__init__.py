"""Image files to labelled pixels, and what is known again of a photo."""
