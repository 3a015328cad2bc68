"""Ordinary traffic: probes and small pictures at a fixed rate, and what came of them."""

import asyncio
from dataclasses import dataclass
from typing import Final

from tests.support.images.pngs import png
from tests.support.server.load_generator import (
    Client,
    Reply,
    at_rate,
    latencies_ms,
    percentile,
    request_bytes,
    run,
)

RATE: Final = 20.0  # requests a second of each


@dataclass(frozen=True)
class Ordinary:
    """The replies to ordinary requests."""

    pictures: list[Reply]
    probes: list[Reply]

    @property
    def planned(self) -> list[Reply]:
        """All of them."""
        return [*self.pictures, *self.probes]

    @property
    def served(self) -> float:
        """The share of pictures that were classified, in [0, 1]."""
        return sum(one.status == 200 for one in self.pictures) / len(self.pictures)

    @property
    def failed(self) -> int:
        """How many were neither answered nor, as pictures may be, told when to come again."""
        return sum(one.status != 200 and not one.refused for one in self.pictures) + sum(
            one.status != 200 for one in self.probes
        )

    @property
    def classify_ms(self) -> float:
        """p99 of the pictures that were classified; a refusal is quick, and no answer."""
        return percentile(latencies_ms([one for one in self.pictures if one.status == 200]), 0.99)

    @property
    def livez_ms(self) -> float:
        """p99 of the probes."""
        return percentile(latencies_ms(self.probes), 0.99)


def ordinary(url: str, *, seconds: float, token: str | None = None) -> Ordinary:
    """Send both for so many seconds, with a key or without."""
    key = {} if token is None else {"Authorization": f"Bearer {token}"}
    classify = request_bytes("POST", "/v1/classify", png(7), Content_Type="image/png", **key)
    probe = request_bytes("GET", "/livez")

    async def measure() -> Ordinary:
        async with Client(url) as one, Client(url) as other:
            sent = await asyncio.gather(
                at_rate(one, classify, rate=RATE, seconds=seconds),
                at_rate(other, probe, rate=RATE, seconds=seconds),
            )
        return Ordinary(*sent)

    return run(measure())
