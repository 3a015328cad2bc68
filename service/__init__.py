"""HTTP face: reads requests, calls vision and index, shapes answers. Never imports training."""
