"""The networks: modules of torch, and the model folder that one of them is saved in."""
