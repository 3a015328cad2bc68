"""The source of truth in SQLite: tables, transactions, the log of operations. Knows no FAISS."""
