"""`lookalike up`: from a folder of photos to the page."""
