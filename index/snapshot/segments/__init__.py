"""What is searched, in parts: an immutable bulk on disk, and what came since."""
