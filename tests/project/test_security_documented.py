"""docs/security.md names every limit with the value that it has, and tests that are there."""

import ast
import importlib
import re

import pytest

from service.config import PREFIX, ServiceSettings
from tests.support.paths import ROOT

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
        *(
            "service.http.admission.BUSY",
            "service.http.admission.MEMORY_S",
            "service.http.admission.LONE_SHARE",
        ),
        *("service.http.admission.PATIENCE", "service.encoding.priority_queue.BULK_TURN"),
        *(
            "service.inference.engine.COST_PIXELS",
            "service.inference.engine.COST_ITEMS",
            "service.inference.engine.COST_S",
        ),
        *(
            "service.inference.image_decoder.LIGHT_BYTES",
            "service.inference.engine.LEAST_DECODERS",
            "service.inference.engine.QUICK_S",
        ),
        *("service.inference.engine.WRITERS", "service.api.search.MANY_HITS"),
        *("service.encoding.client.LANES", "service.encoding.server.PIPELINED"),
        *("service.encoding.program.LEAST_IMAGES", "service.encoding.program.AHEAD"),
        *(
            "index.store.group_commit.MAX_REQUESTS",
            "index.store.group_commit.MAX_ITEMS",
            "service.jobs.deletion.CHUNK",
        ),
        "service.http.request_body.LARGE_BYTES",
        "service.http.request_body.PAGED_BYTES",
    },
    "how often something is looked at, or for how long the server waits for itself": {
        *(
            "service.server.deadlines.LOOK_S",
            "service.server.listening.LOOK_S",
            "service.jobs.runner.POLL_S",
        ),
        *(
            "service.jobs.runner.SAVE_S",
            "service.jobs.runner.CLOSE_S",
            "service.security.api_keys.LOOK_EVERY_S",
        ),
        *(
            "service.telemetry.json_log.DELAY_S",
            "service.telemetry.json_log.FLUSH_S",
            "service.inference.wait_for_writes.POLL_S",
        ),
        *(
            "service.server.bento_supervisor.CHECK_S",
            "service.server.bento_supervisor.AGAIN_S",
            "service.request.metrics_reporter.PERIOD_S",
            "service.worker.SETTLE_S",
        ),
        *(
            "service.worker.SWITCH_INTERVAL_S",
            "service.telemetry.watchdog.STUCK_S",
            "index.snapshot.follower.FRESH_S",
        ),
        *(
            "files.processes.LOOK_S",
            "index.operations.duplicates.GRACE_S",
            "index.search.autotune.ROUND_S",
        ),
        *("index.decoding.decoder_process.START_S", "index.decoding.decoder_process.STALL_S"),
        *("service.encoding.client.LOOK_S", "service.encoding.client.AGAIN_S"),
        *("service.encoding.client.RETRY_S", "service.encoding.program.PERIOD_S"),
        "service.encoding.program.REFUSING_S",
    },
    "of what the server says, logs and traces": {
        *(
            "service.request.gateway.CLIENT_WENT_AWAY",
            "service.request.lifecycle.PACKED_BYTES",
            "service.api.pages.FOLDERS_KEPT",
        ),
        *(
            "service.schemas.image_fields.MAX_SHOWN",
            "service.schemas.validation_messages.MAX_SHOWN",
        ),
        "service.jobs.records.STAMP_CHARACTERS",
        *("service.telemetry.json_log.QUEUE_LINES", "service.telemetry.tracing.MAX_STAGES"),
        *("service.encoding.messages.MOST_BYTES", "service.encoding.messages.MOST_LETTERS"),
    },
    "of the processes that the server starts": {
        *("service.server.worker_count.MOST_WORKERS", "service.worker.HEAPS"),
        *("service.server.worker_count.MOST_FRONTS", "service.encoding.server.FAILURES"),
        *("service.server.worker_count.WORKER_BYTES", "service.worker.START_FAILED"),
        "service.server.worker_count.ENCODER_BYTES",
        *(
            "vision.inference.cuda.batch_plan.HELD_BYTES",
            "vision.inference.cuda.batch_plan.TURN_S",
            "vision.inference.cuda.failures.RETRY_S",
        ),
        *(
            "service.server.worker_replacement.FIRST_WAIT_S",
            "service.server.worker_replacement.LONGEST_WAIT_S",
            "service.server.worker_replacement.MOST_FAILURES",
        ),
        "service.worker.APART_BYTES",
        *("service.worker.OTHER_DESCRIPTORS", "service.inference.decoder.PIXEL_BYTES"),
        *("service.inference.decoder.BESIDE_BYTES", "service.inference.decoder_pool.MOST_PICTURES"),
        *("service.inference.decoder_pool.TRIES", "index.decoding.file_decoder_pool.MAX_PROCESSES"),
    },
    "of the gallery's own files, and of how its structures are built and measured": {
        *(
            "index.store.sqlite.write_ahead_log.LONG_BYTES",
            "index.store.sqlite.write_ahead_log.WAIT_AGAIN_BYTES",
            "index.store.sqlite.write_ahead_log.MAX_BYTES",
        ),
        *(
            "index.store.sqlite.write_ahead_log.MAX_SHARE",
            "index.store.sqlite.write_ahead_log.GRACE_S",
            "index.snapshot.segments.immutable_segment.MAX_LIVE_SHARE",
        ),
        *(
            "index.search.scalar_quantizer.MAX_WIDTH",
            "files.durable.READ_BYTES",
            "index.search.vector_matrix.HEADER_BYTES",
        ),
        *(
            "index.search.tuning_sample.MOST_QUERIES",
            "index.search.tuning_sample.MAX_SHARE",
            "index.search.tuning_sample.MOST_MOVED",
        ),
        *(
            "index.store.schema.PAGE_BYTES",
            "index.search.unindexed_rows.MOST_EQUAL",
            "index.search.ann_index.MAX_SEARCH_DEPTH",
        ),
    },
    "of commands and of the operator's own files": {
        *("index.transfer.import_process.BLOCK_BYTES", "service.server.unix_socket.MAX_PATH_BYTES"),
        *(
            "index.operations.add_images.CHUNK_BYTES",
            "index.transfer.import_vectors.CHUNK_BYTES",
            "index.items.source_entries.MAX_ID_CHARS",
        ),
        *(
            "index.transfer.vector_source.MAX_ID_LINE",
            "vision.export.encoding_comparison.MOST_SEARCHED",
        ),
        *("vision.model.manifest.MAX_MANIFEST_BYTES", "vision.formats.unsupported.HEAD_BYTES"),
        *("vision.image.thumbnail.MAX_SIDE", "vision.image.thumbnail.MOST_SIDE"),
        *(
            "vision.inference.openvino_encoder.WARM_UP_S",
            "vision.inference.openvino_encoder.MOST_AT_ONCE",
        ),
        *(
            "vision.inference.feature_encoder.MOST_AT_ONCE",
            "vision.inference.encoder.MOST_AT_ONCE",
            "vision.export.variant_selection.REFERENCE_S",
        ),
        *("vision.export.variant_selection.MOST_PIXELS", "vision.export.variant_selection.TIMED_S"),
    },
    "behind a limit that is named": {
        *(
            "vision.image.limits.MOST_PIXELS",
            "vision.image.decoding_steps.LARGE_BYTES",
            "vision.image.memory_cost.STRIP_BYTES",
        ),
        "vision.formats.repair.MAX_CHUNKS",
        "service.inference.engine.DECODING_SHARE",
        "service.request.worker_context.BODIES_SHARE",
    },
    "how much of a damaged picture may be missing": {
        *("vision.formats.repair.MAX_MISSING", "vision.formats.repair.MAX_PADDING"),
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
    for path in (ROOT / floor).rglob("*.py"):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value:
                name, value = node.target.id, node.value
                is_number = isinstance(value, ast.BinOp | ast.Name) or (
                    isinstance(value, ast.Constant) and isinstance(value.value, int | float)
                )
                if name.isupper() and name[0] != "_" and is_number:
                    module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
                    found.add(f"{module}.{name}")
    return found


def test_every_constant_that_is_a_limit_is_in_the_document_or_has_a_reason() -> None:
    """Of the service every number; below it those that are named like limits."""
    below = constants("index") | constants("vision") | constants("files")
    limits = constants("service") | {it for it in below if LIMIT.fullmatch(it.split(".")[-1])}
    excepted = set().union(*EXCEPTIONS.values())
    named = {row[2] for row in ROWS}

    assert sorted(limits - named - excepted) == []
    assert sorted(excepted - limits) == []
    assert sorted(excepted & named) == []


def test_the_tests_that_are_named_are_there() -> None:
    named = set(re.findall(r"tests/[\w/]+\.py", DOCUMENT))

    assert len(named) > 10
    assert [name for name in named if not (ROOT / name).exists()] == []
