"""Image files to labelled pixels, and the hashes that photos are recognised by."""
