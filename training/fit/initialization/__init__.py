"""What a network begins with: pretrained weights, or an earlier model."""
