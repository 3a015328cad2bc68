"""Finds the nearest stored vectors to a query vector, and keeps them durably.

Knows images only while building a gallery; knows nothing of HTTP. The only floor that knows FAISS
and SQLite.
"""
