"""Each module measures one thing beside a rival in the same run, and prints one table."""
