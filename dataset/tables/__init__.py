"""A table of images, read: CSV or Parquet, its columns understood."""
