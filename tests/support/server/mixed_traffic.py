"""Mixed traffic for minutes: all routes, good input and bad, patient clients and rude ones.

Every lane owns the ids that it stores under, so what must be in the gallery at the end is known.
"""

import asyncio
import json
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final

from tests.support.images.pngs import bomb_png, encoded, picture, png
from tests.support.server.load_generator import Client, Reply, request_bytes
from tests.support.server.slow_clients import BODY_TRICKLE, HALF_OPEN, Habit, slow_clients

PICTURES: Final = 40  # different ones
IDS: Final = 20  # of each lane
TRUNCATED: Final = encoded(picture(1), "JPEG")[:300]
# Requests that are wrong, and the status each must get.
WRONG: Final[list[tuple[bytes, int]]] = [
    (request_bytes("POST", "/v1/classify", b"", Content_Type="image/png"), 400),
    (request_bytes("POST", "/v1/classify", b"hello", Content_Type="image/png"), 415),
    (request_bytes("POST", "/v1/classify", TRUNCATED, Content_Type="image/jpeg"), 422),
    (request_bytes("POST", "/v1/embed", bomb_png(20_000, 20_000), Content_Type="image/png"), 422),
    (request_bytes("POST", "/v1/search", b"{", Content_Type="application/json"), 400),
    (request_bytes("POST", "/v1/search?k=0", png(1), Content_Type="image/png"), 422),
    (request_bytes("GET", "/v1/items/not-there"), 404),
    (request_bytes("PATCH", "/v1/items"), 405),
    (request_bytes("GET", "/nowhere"), 404),
]


@dataclass
class Seen:
    """What all lanes saw."""

    statuses: Counter[str] = field(default_factory=Counter)  # by kind of request and status
    unexpected: list[str] = field(default_factory=list)
    stored: dict[str, int] = field(default_factory=dict)  # the number of each id's picture

    def count(self, kind: str, reply: Reply, *expected: int) -> bool:
        """Take note of ``reply``; return whether it is as expected, and not a proper refusal."""
        self.statuses[f"{kind} {reply.status}"] += 1
        if reply.status not in expected and not reply.refused:
            self.unexpected.append(f"{kind}: {reply.status} {reply.body[:200]!r}")
        return reply.status in expected


class Lane:
    """One client: it does one thing after the other, by chance."""

    def __init__(self, client: Client, number: int, seen: Seen) -> None:
        self._client = client
        self._seen = seen
        self._random = random.Random(number)
        self._ids = [f"lane-{number}-{place}" for place in range(IDS)]
        self._pictures = [png(picture_number) for picture_number in range(PICTURES)]
        # The share of each kind of request, of the sum of all.
        self._kinds: dict[Callable[[], Awaitable[None]], int] = {
            self.classify: 8,
            self.embed: 4,
            self.search: 8,
            self.search_id: 8,
            self.search_vector: 8,
            self.put: 4,
            self.delete: 2,
            self.bulk: 1,
            self.show: 4,
            self.ask: 2,
            self.send_wrong: 6,
            self.hang_up: 2,
        }

    async def run(self, *, until: float, pause_s: float) -> None:
        """Do things until the event loop's clock shows ``until``."""
        kinds, shares = list(self._kinds), list(self._kinds.values())
        while asyncio.get_running_loop().time() < until:
            await self._random.choices(kinds, shares)[0]()
            await asyncio.sleep(pause_s)

    async def classify(self) -> None:
        await self._image("classify", "POST", "/v1/classify?k=3", 200)

    async def embed(self) -> None:
        await self._image("embed", "POST", "/v1/embed", 200)

    async def search(self) -> None:
        await self._image("search by image", "POST", "/v1/search?k=5", 200)

    async def search_id(self) -> None:
        item_id = self._random.choice(self._ids)
        expected = 200 if item_id in self._seen.stored else 404
        await self._json("search by id", "POST", "/v1/search", {"id": item_id}, expected)

    async def search_vector(self) -> None:
        place = self._random.randrange(256)
        vector = [float(number == place) for number in range(256)]
        search = {"vector": vector, "filter": {"must": [{"key": "label", "match": "coat"}]}}
        await self._json("search by vector", "POST", "/v1/search", search, 200)

    async def put(self) -> None:
        item_id, number = self._random.choice(self._ids), self._random.randrange(PICTURES)
        target = f"/v1/items/{item_id}?label=coat"
        if await self._image("put", "PUT", target, 200, 201, number=number):
            self._seen.stored[item_id] = number

    async def delete(self) -> None:
        item_id = self._random.choice(self._ids)
        expected = 200 if item_id in self._seen.stored else 404
        request = request_bytes("DELETE", f"/v1/items/{item_id}")
        if self._seen.count("delete", await self._client.request(request), expected):
            self._seen.stored.pop(item_id, None)

    async def bulk(self) -> None:
        """Store three good images and a broken one."""
        ids, numbers = self._random.sample(self._ids, 3), self._random.sample(range(PICTURES), 3)
        parts = [self._pictures[number] for number in numbers] + [TRUNCATED]
        items = json.dumps([{"id": item_id} for item_id in (*ids, "broken")]).encode()
        body = b"".join(_part("image", part) for part in parts) + _part("items", items)
        request = request_bytes(
            "POST", "/v1/items", body + b"--b--\r\n", Content_Type="multipart/form-data; boundary=b"
        )
        reply = await self._client.request(request)
        if self._seen.count("bulk", reply, 207):
            statuses = [one["status"] for one in json.loads(reply.body)["results"]]
            if statuses[3] != 422 or not set(statuses[:3]) <= {200, 201}:
                self._seen.unexpected.append(f"bulk: {statuses}")
            self._seen.stored |= dict(zip(ids, numbers, strict=True))

    async def show(self) -> None:
        item_id = self._random.choice(self._ids)
        expected = 200 if item_id in self._seen.stored else 404
        request = request_bytes("GET", f"/v1/items/{item_id}")
        self._seen.count("show", await self._client.request(request), expected)

    async def ask(self) -> None:
        target = self._random.choice(["/v1/items?limit=20", "/v1/gallery", "/metrics", "/readyz"])
        self._seen.count("ask", await self._client.request(request_bytes("GET", target)), 200)

    async def send_wrong(self) -> None:
        request, expected = self._random.choice(WRONG)
        self._seen.count("wrong", await self._client.request(request), expected)

    async def hang_up(self) -> None:
        """Begin a request, or send its body slowly, and go away in the midst of it."""
        habit: Habit = self._random.choice([HALF_OPEN, BODY_TRICKLE])
        (rude,) = await slow_clients(self._client.url, habit, 1)
        await asyncio.sleep(0.05)
        rude.leave()
        self._seen.statuses["hung up"] += 1

    async def _image(
        self, kind: str, method: str, target: str, *expected: int, number: int | None = None
    ) -> bool:
        if number is None:
            number = self._random.randrange(PICTURES)
        request = request_bytes(method, target, self._pictures[number], Content_Type="image/png")
        return self._seen.count(kind, await self._client.request(request), *expected)

    async def _json(
        self, kind: str, method: str, target: str, body: dict[str, Any], *expected: int
    ) -> None:
        request = request_bytes(
            method, target, json.dumps(body).encode(), Content_Type="application/json"
        )
        self._seen.count(kind, await self._client.request(request), *expected)


def _part(name: str, data: bytes) -> bytes:
    file = '; filename="x"' if name == "image" else ""
    head = f'--b\r\nContent-Disposition: form-data; name="{name}"{file}\r\n\r\n'
    return head.encode() + data + b"\r\n"


async def mixed_traffic(
    client: Client, seen: Seen, *, lanes: int, seconds: float, pause_s: float
) -> None:
    """Let ``lanes`` clients do what they like for ``seconds``."""
    until = asyncio.get_running_loop().time() + seconds
    crowd = [Lane(client, number, seen) for number in range(lanes)]
    await asyncio.gather(*(lane.run(until=until, pause_s=pause_s) for lane in crowd))
