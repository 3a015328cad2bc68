"""The network in a process of its own, and the way of pixels and answers to it and back."""
