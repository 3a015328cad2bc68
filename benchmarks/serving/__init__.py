"""Serving beside other servers of the same network."""
