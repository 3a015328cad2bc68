"""What is done to a whole gallery from above: adding images, duplicates, counts, purging."""
