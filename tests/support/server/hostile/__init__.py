"""Hostile requests, and a server that they can hurt."""
