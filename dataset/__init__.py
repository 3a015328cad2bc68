"""A folder or table of images in, a list of files with classes, parts and metadata out."""
