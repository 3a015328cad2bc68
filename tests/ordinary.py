"""Ordinary traffic from a process of its own: probes and small pictures at a fixed rate.

    python -m tests.ordinary URL SECONDS

Prints, as JSON, the latencies of both in milliseconds, what was not answered with 200, and by how
much requests were sent late, which is this process's own fault.
"""

import asyncio
import json
import sys
from typing import Final

from tests.load import Client, at_rate, percentile, request_bytes, run
from tests.pictures import png

RATE: Final = 20.0  # requests a second of each


async def measure(url: str, seconds: float) -> dict[str, object]:
    """Send both for so many seconds."""
    classify = request_bytes("POST", "/v1/classify", png(7), Content_Type="image/png")
    probe = request_bytes("GET", "/livez")
    async with Client(url) as one, Client(url) as other:
        replies, probes = await asyncio.gather(
            at_rate(one, classify, rate=RATE, seconds=seconds),
            at_rate(other, probe, rate=RATE, seconds=seconds),
        )
    return {
        "classify_ms": percentile([reply.latency_ms for reply in replies], 0.99),
        "livez_ms": percentile([reply.latency_ms for reply in probes], 0.99),
        "late_ms": percentile([reply.late_ms for reply in (*replies, *probes)], 0.99),
        "refused": sum(reply.refused for reply in replies),
        "failed": sum(reply.status != 200 and not reply.refused for reply in (*replies, *probes)),
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(run(measure(sys.argv[1], float(sys.argv[2])))))
