"""A model measured on data: classes, retrieval, calibration, novelty."""
