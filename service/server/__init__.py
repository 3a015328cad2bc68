"""Processes, sockets and connections; the only place that reaches into uvicorn and BentoML."""
