"""What one request did: its steps write it down, and log, metrics and traces are made from it."""

import time
from typing import Any, Final, Literal

Stage = Literal["body", "queue", "decode", "encode", "search", "write"]
STAGES: Final[tuple[Stage, ...]] = ("body", "queue", "decode", "encode", "search", "write")


class RequestRecord:
    """One request's time in each stage, its images and problems, and the bytes of its two bodies.

    Every duration is noted once, here: the timings in an answer are sums over the stages, too.
    """

    __slots__ = (
        "bytes_in",
        "bytes_out",
        "images",
        "item_problems",
        "key",
        "method",
        "problem",
        "received",
        "refusals",
        "request_id",
        "route",
        "seconds",
        "stages",
        "started",
        "status",
    )

    def __init__(self, *, request_id: str = "", method: str = "") -> None:
        self.request_id = request_id
        self.method = method
        self.route = ""  # the path's template, once it is known
        self.status = 0  # of the answer; 0: nothing was sent yet
        self.key: str | None = None  # the name of the API key
        self.started = time.perf_counter()
        self.received = self.started  # when the whole body had been read
        self.seconds = 0.0  # from start to end, once it has ended
        self.stages: list[tuple[Stage, float, float]] = []  # name, begun (perf_counter), seconds
        self.images = 0  # that the network took
        self.problem: str | None = None  # the code of the answer, when it is a problem
        self.item_problems: list[str] = []  # codes of single items, in an answer that went through
        self.refusals: list[str] = []  # codes of images that could not be used
        self.bytes_in = 0
        self.bytes_out = 0

    def note_stage(self, stage: Stage, *, begun: float) -> None:
        """Write down a stage that ends now and began at ``begun``, a time of ``perf_counter``."""
        self.stages.append((stage, begun, time.perf_counter() - begun))

    def note_image(self, *, queue_ms: float, decode_ms: float, encode_ms: float) -> None:
        """Write down an image that has just come out of the network."""
        self.images += 1
        encode_s, decode_s, queue_s = encode_ms / 1000, decode_ms / 1000, queue_ms / 1000
        begun = time.perf_counter() - encode_s
        # The wait lies before and after the decoding; it is shown as if all of it came first.
        self.stages += (
            ("queue", begun - decode_s - queue_s, queue_s),
            ("decode", begun - decode_s, decode_s),
            ("encode", begun, encode_s),
        )

    def log_fields(self, *, worker: int) -> dict[str, Any]:
        """Return what the log says of a request that has ended; stages summed over its images."""
        fields: dict[str, Any] = {
            "request_id": self.request_id,
            "worker": worker,
            "method": self.method,
            "route": self.route,
            "status": self.status,
            "total_ms": to_ms(self.seconds),
            **self._milliseconds(),
            "images": self.images,
            "bytes_in": self.bytes_in,
            "bytes_out": self.bytes_out,
        }
        if self.problem is not None:
            fields["code"] = self.problem
        if self.item_problems:
            fields["failed_items"] = len(self.item_problems)
        if self.key is not None:
            fields["key"] = self.key
        return fields

    def _milliseconds(self) -> dict[str, float]:
        sums: dict[str, float] = {}
        for stage, _, seconds in self.stages:
            name = _LOG_NAMES[stage]
            sums[name] = sums.get(name, 0.0) + seconds
        return {name: to_ms(seconds) for name, seconds in sums.items()}


_LOG_NAMES: Final[dict[Stage, str]] = {stage: f"{stage}_ms" for stage in STAGES}


def to_ms(seconds: float) -> float:
    """Return ``seconds`` as milliseconds, to the microsecond."""
    return round(seconds * 1000, 3)
