"""What can go wrong between a source of images and the list of its files.

DatasetError    a folder or table is missing, damaged, empty, or contradicts itself
"""


class DatasetError(Exception):
    """Base of this floor's errors: a source cannot be read, or contradicts itself."""
