"""A folder of images, read: walked, and its names understood."""
