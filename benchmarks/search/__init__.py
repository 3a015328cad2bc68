"""Vector search beside other libraries."""
