"""What can go wrong between what a person points at and a list of its files.

DatasetError    a folder or table is missing, damaged, empty, or says two things at once
"""


class DatasetError(Exception):
    """Base of this floor's errors: a source cannot be read, or says two things at once."""
