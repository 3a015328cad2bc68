"""What a build would do, without doing any of it: entries in, a report out."""

import hashlib
import time
from collections import Counter
from collections.abc import Callable, Iterable
from itertools import islice

from index.decoding.decoder_pool import SLICE
from index.decoding.file_decoder import content_of
from index.gallery import Gallery
from index.items.source_edits import decide
from index.items.source_entries import Entry
from index.operations.add_images import Told, find_fault
from index.operations.build_report import BuildReport
from index.store.build_origins import Origins
from vision.image.limits import ImageLimits


def preview(
    gallery: Gallery,
    entries: Iterable[Entry],
    *,
    source: str,
    limits: ImageLimits,
    on_progress: Callable[[int], None],
    prune: bool,
) -> BuildReport:
    """Return the report that a build would end with, all images being readable.

    Reads every file and decodes none; the arguments are those of
    ``index.operations.add_images.build``.
    """
    started = time.perf_counter()
    outcomes: Counter[str] = Counter()
    refused: list[tuple[str, str]] = []
    told = Told()
    origins = Origins(gallery.folder, source)
    try:
        coming = told.of(entries)
        while part := list(islice(coming, SLICE)):
            ids = [entry.id for entry in part]
            stored, memories = gallery.existing(ids), origins.recall(ids)
            for entry in part:
                data, fault = content_of(entry.data, limits=limits)
                digest = hashlib.sha256(data).hexdigest()
                decision = decide(entry, digest, stored.get(entry.id), memories.get(entry.id))
                fault = fault or find_fault(entry.id, decision.claim)
                if fault is not None:
                    refused.append((entry.id, fault))
                    continue
                outcomes["kept"] += decision.keeps_edits
                if decision.is_unchanged:
                    outcomes["unchanged"] += 1
                else:
                    outcomes["created" if decision.item is None else "replaced"] += 1
            on_progress(len(part))
        stale = told.missing_among(origins.brought())
    finally:
        origins.close()
    outcomes["pruned" if prune else "stale"] = len(stale)
    count = gallery.count + outcomes["created"] - outcomes["pruned"]
    return BuildReport.of(outcomes, refused, count=count, started=started)
