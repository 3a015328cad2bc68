"""What a person points at in, a list of files with classes, parts and metadata out."""
