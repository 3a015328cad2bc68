"""docs/security.md names every limit with the value that it has, and tests that are there."""

import ast
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
    *("unix_socket", "root_path", "imports_dir"),
    *("cors_origins", "backups_dir", "workers", "formats", "max_batch", "device", "runtime"),
    *("log_level", "drain_s", "otlp_endpoint", "trace_ratio"),
    "requests_per_minute",  # none unless it is set; in words
}
# Constants of the service, and limits below it, that are no limits of what a client does: why.
EXCEPTIONS = {
    "how queues are shared and averaged": {
        *("service.admission.BUSY", "service.admission.MEMORY_S", "service.admission.LONE_SHARE"),
        *("service.admission.PATIENCE", "service.precedence.BULK_TURN"),
        *("service.engine.COST_PIXELS", "service.engine.COST_ITEMS", "service.engine.COST_S"),
        *("service.engine.LIGHT_BYTES", "service.engine.LEAST_DECODERS", "service.engine.QUICK_S"),
        *("service.engine.WRITERS", "service.search_routes.MANY_HITS"),
        *("index.writer.MAX_REQUESTS", "index.writer.MAX_ITEMS", "service.deletion.CHUNK"),
        "service.body.LARGE_BYTES",
        "service.body.PAGED_BYTES",
    },
    "how often something is looked at, or for how long the server waits for itself": {
        *("service.deadlines.LOOK_S", "service.reception.LOOK_S", "service.jobs.LOOK_S"),
        *("service.jobs.SAVE_S", "service.jobs.CLOSE_S", "service.keys.LOOK_EVERY_S"),
        *("service.logs.DELAY_S", "service.logs.FLUSH_S", "service.newest.POLL_S"),
        *("service.supervision.CHECK_S", "service.vitals.PERIOD_S", "service.worker.SETTLE_S"),
        *("service.worker.SWITCH_INTERVAL_S", "service.busy.STUCK_S", "index.follower.FRESH_S"),
        *("index.upkeep.PERIOD_S", "index.upkeep.BUSY_S", "index.upkeep.PATIENCE_S"),
        *("index.parent.LOOK_S", "index.duplicates.GRACE_S", "index.measure.ROUND_S"),
        *("index.decoder_process.START_S", "index.decoder_process.STALL_S"),
    },
    "of what the server says, logs and traces": {
        *(
            "service.front.CLIENT_WENT_AWAY",
            "service.dispatch.PACKED_BYTES",
            "service.pages.FOLDERS_KEPT",
        ),
        *("service.image_names.MAX_SHOWN", "service.reasons.MAX_SHOWN"),
        *("service.logs.QUEUE_LINES", "service.tracing.MAX_STAGES"),
    },
    "of the processes that the server starts": {
        *("service.cores.MOST_WORKERS", "service.worker.HEAPS"),
        "service.worker.APART_BYTES",
        *("service.worker.OTHER_DESCRIPTORS", "service.decoder.PIXEL_BYTES"),
        *("service.decoder.BESIDE_BYTES", "service.decoders.MOST_PICTURES"),
        *("service.decoders.TRIES", "index.crew.MOST"),
    },
    "of the gallery's own files, and of how its structures are built and measured": {
        *("index.ahead.LONG_BYTES", "index.ahead.WAIT_AGAIN_BYTES", "index.ahead.MAX_BYTES"),
        *("index.ahead.MAX_SHARE", "index.ahead.GRACE_S", "index.base.MOST_ALIVE"),
        *("index.byte_codes.MAX_WIDTH", "index.durable.READ_BYTES", "index.matrix.HEADER_BYTES"),
        *("index.sample.MOST_QUERIES", "index.sample.MAX_SHARE", "index.sample.MOST_MOVED"),
        *("index.schema.PAGE_BYTES", "index.strays.MOST_EQUAL", "index.structure.MAX_EFFORT"),
    },
    "of commands and of the operator's own files": {
        *("index.import_process.BLOCK_BYTES", "service.unix_socket.MAX_PATH_BYTES"),
        *("index.build.CHUNK_BYTES", "index.intake.CHUNK_BYTES", "index.source.MAX_ID_CHARS"),
        *("index.vector_source.MAX_ID_LINE", "vision.comparison.MOST_SEARCHED"),
        *("vision.manifest.MAX_MANIFEST_BYTES", "vision.foreign.HEAD_BYTES"),
        *("vision.thumbnail.MAX_SIDE", "vision.thumbnail.MOST_SIDE"),
        *("vision.openvino_encoder.WARM_UP_S", "vision.openvino_encoder.MOST_AT_ONCE"),
        *("vision.feature_encoder.MOST_AT_ONCE", "vision.trial.REFERENCE_S"),
        *("vision.trial.MOST_PIXELS", "vision.trial.TIMED_S"),
    },
    "behind a limit that is named": {
        *("vision.decoding.MOST_PIXELS", "vision.decoding.LARGE_BYTES", "vision.cost.STRIP_BYTES"),
        "vision.mending.MAX_CHUNKS",
    },
    "how much of a damaged picture may be missing": {
        *("vision.mending.MAX_MISSING", "vision.mending.MAX_PADDING"),
    },
}
LIMIT = re.compile(r"(MAX|MOST)(_\w+)?|\w+_(S|BYTES)|LIGHT_\w+")


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


def constants(floor: str) -> set[str]:
    """Return where the numbers of a floor are that have a name in capitals."""
    found = set()
    for path in (ROOT / floor).glob("*.py"):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value:
                name, value = node.target.id, node.value
                is_number = isinstance(value, ast.BinOp | ast.Name) or (
                    isinstance(value, ast.Constant) and isinstance(value.value, int | float)
                )
                if name.isupper() and name[0] != "_" and is_number:
                    found.add(f"{floor}.{path.stem}.{name}")
    return found


def test_every_constant_that_is_a_limit_is_in_the_document_or_has_a_reason() -> None:
    """Of the service every number; below it those that are named like limits."""
    below = constants("index") | constants("vision")
    limits = constants("service") | {it for it in below if LIMIT.fullmatch(it.split(".")[-1])}
    excepted = set().union(*EXCEPTIONS.values())
    named = {row[2] for row in ROWS}

    assert sorted(limits - named - excepted) == []
    assert sorted(excepted - limits) == []
    assert sorted(excepted & named) == []


def test_the_tests_that_are_named_are_there() -> None:
    named = set(re.findall(r"tests/\w+\.py", DOCUMENT))

    assert len(named) > 10
    assert [name for name in named if not (ROOT / name).exists()] == []
