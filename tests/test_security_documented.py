"""docs/security.md names every limit with the value that it has, and tests that are there."""

import importlib
import re
from pathlib import Path

import pytest

from service.config import PREFIX, ServiceSettings

ROOT = Path(__file__).parents[1]
DOCUMENT = (ROOT / "docs" / "security.md").read_text()
ROWS = re.findall(r"^\| ([^|]+) \| ([\d.]+) \| ([\w.]+) \| ([^|]+) \| ([^|]+) \|$", DOCUMENT, re.M)
# What bounds nothing that a client sends.
NO_LIMITS = {
    *("model", "gallery", "create", "api_keys_file", "trusted_proxies", "allowed_hosts"),
    *(
        "cors_origins",
        "backups_dir",
        "imports_dir",
        "workers",
        "formats",
        "max_batch",
        "device",
        "runtime",
    ),
    *("log_level", "drain_s", "otlp_endpoint", "trace_ratio"),
    *("wrong_keys_per_minute", "requests_per_minute"),  # in words
}


def value_of(where: str) -> float:
    if where.startswith(PREFIX):
        name = where.removeprefix(PREFIX).lower()
        return float(ServiceSettings.model_fields[name].default)
    module, _, name = where.rpartition(".")
    return float(getattr(importlib.import_module(module), name))


@pytest.mark.parametrize(("limit", "where"), [(row[1], row[2]) for row in ROWS])
def test_a_limit_is_what_the_document_says(limit: str, where: str) -> None:
    assert float(limit) == value_of(where)


def test_every_setting_that_is_a_limit_is_in_the_document() -> None:
    named = {row[2].removeprefix(PREFIX).lower() for row in ROWS if row[2].startswith(PREFIX)}

    assert named == set(ServiceSettings.model_fields) - NO_LIMITS


def test_the_tests_that_are_named_are_there() -> None:
    named = set(re.findall(r"tests/\w+\.py", DOCUMENT))

    assert len(named) > 10
    assert [name for name in named if not (ROOT / name).exists()] == []
