"""Figures to a model card and an HTML page."""
