"""An error that nobody foresaw in, a file about it out, which a person can send without a worry."""

import importlib.metadata
import os
import platform
import re
import sys
import tempfile
import traceback
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

PACKAGES: Final = (
    *("lookalike", "apsw", "bentoml", "faiss-cpu", "numpy", "openvino", "pillow", "rich"),
    *("torch", "torchvision", "timm", "typer"),
)
HIDDEN: Final = r"\1[hidden]"
SECRETS: Final = (
    re.compile(r"\b(lk_)[\w-]{8,}"),  # our API keys
    re.compile(r"(://)[^/\s@'\"]+(?=@)"),  # name and password in an address
    re.compile(r"(bearer\s+)[^\s'\"]+", re.IGNORECASE),
    re.compile(r"((?:token|secret|password|passwd|api[_-]?key)=)[^\s'\"]+", re.IGNORECASE),
)


def write_report(error: BaseException, arguments: Sequence[str]) -> Path | None:
    """Write what is known about ``error`` to a new file that only its owner can read.

    It holds the traceback, the versions of what runs here and the command line; no environment,
    and nothing that looks like a key or a password.

    Returns:
        The file in the folder for temporary files, or None where it cannot be written.
    """
    try:
        descriptor, name = tempfile.mkstemp(prefix="lookalike-report-", suffix=".txt")
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(report(error, arguments))
    except Exception:
        return None
    return Path(name)


def report(error: BaseException, arguments: Sequence[str]) -> str:
    """Return the text of the report."""
    lines = [
        f"time: {datetime.now(UTC).isoformat(timespec='seconds')}",
        f"command: {' '.join(map(repr, arguments))}",
        f"folder: {_folder()}",
        f"python: {sys.version}",
        f"platform: {platform.platform()}",
        *(f"{name}: {version}" for name in PACKAGES if (version := installed_version(name))),
        "",
        *traceback.format_exception(error),
    ]
    return redact_secrets("\n".join(lines))


def redact_secrets(text: str) -> str:
    """Return ``text`` with keys and passwords hidden."""
    for secret in SECRETS:
        text = secret.sub(HIDDEN, text)
    return text


def error_location(error: BaseException) -> str:
    """Return the file and the line in which ``error`` arose."""
    frames = traceback.extract_tb(error.__traceback__)
    return f"{frames[-1].filename}, line {frames[-1].lineno}" if frames else "an unknown place"


def installed_version(package: str) -> str | None:
    """Return the version of a package; None where it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _folder() -> str:
    try:
        return str(Path.cwd())
    except OSError:  # it has been deleted
        return "deleted"
