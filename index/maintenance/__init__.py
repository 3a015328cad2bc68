"""Keeping a gallery quick and sound: compaction, rebuilding, verifying."""
