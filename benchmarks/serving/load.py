"""Uploads as they go over the wire, and what wrk and the kernel say of a server that gets them."""

import re
import resource
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from benchmarks.serving.servers import Server

BOUNDARY = "----------------------------benchmark"
TO_MS = {"us": 0.001, "ms": 1.0, "s": 1000.0}
TIMEOUT_S = 20  # of a request; more counts as an error


@dataclass(frozen=True)
class Upload:
    """A request's body, and its type."""

    body: bytes
    content_type: str

    @classmethod
    def raw(cls, image: bytes) -> "Upload":
        """Return an upload that is nothing but the image."""
        return cls(image, image_type(image))

    @classmethod
    def form(cls, images: list[bytes], *, part: str = "image") -> "Upload":
        """Return a multipart form with one file for each image, all called ``part``."""
        body = b"".join(_part(image, part, number) for number, image in enumerate(images))
        return cls(
            body + f"--{BOUNDARY}--\r\n".encode(), f"multipart/form-data; boundary={BOUNDARY}"
        )


@dataclass(frozen=True)
class Load:
    """What one run of wrk measured."""

    rate: float  # good answers per second
    p50_ms: float
    p99_ms: float
    errors: int  # answers other than 2xx, and broken or timed out connections
    requests: int
    cpu_ms: float  # of all processes of the server, per request
    wrk_cpu_ms: float  # per request


def image_type(image: bytes) -> str:
    """Return the media type of a PNG or JPEG."""
    return "image/png" if image.startswith(b"\x89PNG") else "image/jpeg"


def put_under_load(
    server: Server, path: str, upload: Upload, *, connections: int, seconds: float
) -> Load:
    """Run wrk on one thread against ``path`` of a server and return what was measured."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "body").write_bytes(upload.body)
        script = Path(folder) / "post.lua"
        script.write_text(
            f'local file = io.open("{folder}/body", "rb")\n'
            'wrk.method, wrk.body = "POST", file:read("*a")\n'
            f'wrk.headers["Content-Type"] = "{upload.content_type}"\n'
        )
        load = ("-t1", f"-c{connections}", f"-d{seconds:g}s", f"--timeout={TIMEOUT_S}s")
        command = ["wrk", *load, "--latency", "-s", str(script), f"{server.url}{path}"]
        wrk_before, before = _children_cpu_s(), server.cpu_s()
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        server_s, wrk_s = server.cpu_s() - before, _children_cpu_s() - wrk_before
    count, took, unit = re.findall(r"(\d+) requests in ([\d.]+)(ms|s|m)", text)[0]
    refused = sum(map(int, re.findall(r"Non-2xx or 3xx responses: (\d+)", text)))
    broken = sum(
        int(number)
        for kind in re.findall(r"Socket errors: (.*)", text)
        for number in re.findall(r"\d+", kind)
    )
    requests = int(count)
    took_s = float(took) * {"ms": 0.001, "s": 1, "m": 60}[unit]
    return Load(
        rate=(requests - refused) / took_s,
        p50_ms=_milliseconds(text, "50%"),
        p99_ms=_milliseconds(text, "99%"),
        errors=refused + broken,
        requests=requests,
        cpu_ms=server_s * 1000 / max(1, requests),
        wrk_cpu_ms=wrk_s * 1000 / max(1, requests),
    )


def _part(image: bytes, part: str, number: int) -> bytes:
    kind = image_type(image)
    name = f"{number}.{kind.removeprefix('image/')}"
    head = (
        f"--{BOUNDARY}\r\n"
        f'Content-Disposition: form-data; name="{part}"; filename="{name}"\r\n'
        f"Content-Type: {kind}\r\n\r\n"
    )
    return head.encode() + image + b"\r\n"


def _children_cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _milliseconds(text: str, percentile: str) -> float:
    value, unit = re.findall(rf"{percentile}\s+([\d.]+)(us|ms|s)", text)[0]
    return float(value) * TO_MS[unit]
