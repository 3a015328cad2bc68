"""One GPU: batches through streams, graphs of the network, and what is done when it fails."""
