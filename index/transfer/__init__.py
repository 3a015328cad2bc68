"""Galleries out to files and back: export, import, backup."""
