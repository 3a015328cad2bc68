"""One request, read: its images, its query, its items."""
