"""A trained network to ONNX and OpenVINO, and which form of it is served."""
