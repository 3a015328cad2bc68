"""Routes that FastAPI documents and does not otherwise touch."""

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute


class DirectRoute(APIRoute):
    """Calls its endpoint with the request and the path's parameters, and sends what it returns.

    Our endpoints read the request and write the answer themselves, so FastAPI's solving of
    dependencies (which parses cookies, queries and headers each time) would find nothing to do.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the function that answers a request."""
        endpoint = self.endpoint

        async def answer(request: Request) -> Response:
            response: Response = await endpoint(request, **request.path_params)
            return response

        return answer
