"""How much of a GPU the processes before it can use, measured with a stand-in for the GPU."""
