"""Images to vectors in a worker: decoding, micro-batches, the network."""
