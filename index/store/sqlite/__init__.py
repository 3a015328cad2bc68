"""SQLite files, opened safely: locks, read-only disks, the write-ahead log, moved files."""
