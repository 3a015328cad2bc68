"""Ray Serve with batching: https://docs.ray.io/en/latest/serve/advanced-guides/dyn-req-batch.html"""

import os
from typing import Any

import numpy as np
from ray import serve
from starlette.requests import Request

from benchmarks.serving.rivals.classifier import Classifier


@serve.deployment(max_ongoing_requests=64)  # the default of 5 would keep batches below 6
class Classify:
    """Decodes a request when it comes, and runs the network on a batch of them."""

    def __init__(self) -> None:
        self.classifier = Classifier.from_environment()

    @serve.batch(max_batch_size=32, batch_wait_timeout_s=0.01)
    async def batched(self, pixels: list[np.ndarray]) -> list[dict[str, Any]]:
        """Return the answers to the requests of a batch."""
        return self.classifier.answers(np.stack(pixels))

    async def __call__(self, request: Request) -> dict[str, Any]:
        """Answer a request whose body is an image."""
        return await self.batched(self.classifier.pixels(await request.body()))


if __name__ == "__main__":
    serve.start(http_options={"host": "127.0.0.1", "port": int(os.environ["PORT"])})
    serve.run(Classify.bind(), blocking=True)
