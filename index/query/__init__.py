"""Questions to a gallery, and changes that depend on what is stored."""
