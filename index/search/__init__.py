"""Vectors to the nearest rows: exact, or by a FAISS index. Knows no SQLite."""
