"""A trained network to ONNX and OpenVINO, and which variant of it is served."""
