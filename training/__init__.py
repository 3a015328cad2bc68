"""Fits the networks of vision and measures them. Never imported by service."""
