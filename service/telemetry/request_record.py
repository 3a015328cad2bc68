"""What one request did: the layers that it passes write it down, and the front reports it.

It travels with the request's task and not through every signature. Code that runs for no request,
such as a job, writes into nothing.
"""

import time
from contextvars import ContextVar
from typing import Final, Literal

Stage = Literal["body", "queue", "decode", "encode", "search", "write"]
STAGES: Final[tuple[Stage, ...]] = ("body", "queue", "decode", "encode", "search", "write")


class RequestRecord:
    """One request's stages, images and problems, and the bytes of its two bodies."""

    __slots__ = (
        "bytes_in",
        "bytes_out",
        "caller",
        "images",
        "item_problems",
        "problem",
        "refusals",
        "stages",
    )

    def __init__(self) -> None:
        self.stages: list[tuple[Stage, float, float]] = []  # name, begun (perf_counter), seconds
        self.images = 0  # that the network took
        self.problem: str | None = None  # the code of the answer, when it is a problem
        self.item_problems: list[str] = []  # codes of single items, in an answer that went through
        self.refusals: list[str] = []  # codes of images that could not be used
        self.caller = ""  # whose the request is, where that is known: those share what there is
        self.bytes_in = 0
        self.bytes_out = 0

    def milliseconds(self) -> dict[str, float]:
        """Return the time of every stage by the name it has in the log, summed over images."""
        sums: dict[str, float] = {}
        for stage, _, seconds in self.stages:
            name = _LOG_NAMES[stage]
            sums[name] = sums.get(name, 0.0) + seconds
        return {name: round(seconds * 1000, 3) for name, seconds in sums.items()}


_LOG_NAMES: Final[dict[Stage, str]] = {stage: f"{stage}_ms" for stage in STAGES}
_CURRENT: Final[ContextVar[RequestRecord | None]] = ContextVar("account", default=None)


def open_record() -> RequestRecord:
    """Return the account of the request that this task answers from now on."""
    account = RequestRecord()
    _CURRENT.set(account)
    return account


def current_caller() -> str:
    """Return whose request this task answers; of no request, or of nobody known, ``""``."""
    account = _CURRENT.get()
    return "" if account is None else account.caller


def note_stage(stage: Stage, *, begun: float) -> None:
    """Write down a stage that ends now and began at ``begun``, a time of ``perf_counter``."""
    account = _CURRENT.get()
    if account is not None:
        account.stages.append((stage, begun, time.perf_counter() - begun))


def note_image(*, queue_ms: float, decode_ms: float, encode_ms: float) -> None:
    """Write down an image that has just come out of the network."""
    account = _CURRENT.get()
    if account is None:
        return
    account.images += 1
    encode_s, decode_s, queue_s = encode_ms / 1000, decode_ms / 1000, queue_ms / 1000
    begun = time.perf_counter() - encode_s
    # The wait lies before and after the decoding; it is shown as if all of it came first.
    account.stages += (
        ("queue", begun - decode_s - queue_s, queue_s),
        ("decode", begun - decode_s, decode_s),
        ("encode", begun, encode_s),
    )


def note_problem(code: str, *, of_item: bool, is_refusal: bool) -> None:
    """Write down a problem: the whole answer's, or that of one item in it.

    Args:
        code: the stable code of the problem.
        of_item: the request itself went through.
        is_refusal: it is the image that could not be used.
    """
    account = _CURRENT.get()
    if account is None:
        return
    if of_item:
        account.item_problems.append(code)
    else:
        account.problem = code
    if is_refusal:
        account.refusals.append(code)
