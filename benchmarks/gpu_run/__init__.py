"""Everything that wants a GPU, in one run of ten minutes at most."""
