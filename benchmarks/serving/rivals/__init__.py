"""Other servers of the same network, each as its guide shows; ``benchmarks.serving`` runs them."""
