"""The contract: parameters of requests and shapes of answers."""
