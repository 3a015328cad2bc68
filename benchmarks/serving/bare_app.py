"""The rival of ``benchmarks.serving``: Starlette on uvicorn, one image at a time, nothing else.

Same decoder, same network, same answer as POST /v1/classify; no batching, no limits, no logs.
"""

import os
from pathlib import Path

import numpy as np
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from vision.inference.torch_encoder import TorchEncoder


def create_app() -> Starlette:
    """Return the application for the model folder that the variable MODEL names."""
    encoder = TorchEncoder.load(Path(os.environ["MODEL"]), device=os.environ.get("DEVICE", "auto"))
    encoder.warm_up((1,))
    manifest = encoder.manifest

    async def classify(request: Request) -> JSONResponse:
        image = manifest.preprocessing.decode(await request.body())
        pixels_CHW = manifest.preprocessing.pixels(image)
        probabilities_L = encoder.encode(pixels_CHW[np.newaxis]).probabilities_BL[0]
        best = np.argsort(-probabilities_L, kind="stable")[:5]
        predictions = [
            {"label": manifest.labels[row], "probability": float(probabilities_L[row])}
            for row in best
        ]
        return JSONResponse({**predictions[0], "predictions": predictions})

    async def ready(_: Request) -> JSONResponse:
        return JSONResponse({"status": "ok"})

    return Starlette(
        routes=[
            Route("/v1/classify", classify, methods=["POST"]),
            Route("/readyz", ready),
        ]
    )
