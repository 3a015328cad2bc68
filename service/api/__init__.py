"""The routes, one file per group, and what /openapi.json says of them."""
