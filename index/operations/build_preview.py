"""What a build would do, without doing any of it: entries in, a report out."""

import hashlib
import time
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import closing

from index.decoding.file_decoder import read_content
from index.gallery import Gallery
from index.items.source_edits import decide
from index.items.source_entries import ImageEntry
from index.operations.add_images import SeenIds, fault_of, in_slices
from index.operations.build_report import BuildReport
from index.store.build_origins import BuildOrigins
from vision.image.limits import ImageLimits


def preview_build(
    gallery: Gallery,
    entries: Iterable[ImageEntry],
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
    seen = SeenIds()
    with closing(BuildOrigins(gallery.folder, source)) as origins:
        for known_entries in in_slices(seen.of(entries), gallery, origins):
            for known in known_entries:
                data, fault = read_content(known.entry.data, limits=limits)
                digest = hashlib.sha256(data).hexdigest()
                decision = decide(known.entry, digest, known.item, known.record)
                fault = fault or fault_of(known.entry.id, decision.state)
                if fault is not None:
                    refused.append((known.entry.id, fault))
                    continue
                outcomes["kept"] += decision.keeps_edits
                if decision.is_unchanged:
                    outcomes["unchanged"] += 1
                else:
                    outcomes["created" if decision.item is None else "replaced"] += 1
            on_progress(len(known_entries))
        stale = seen.unseen(origins.built_ids())
    outcomes["pruned" if prune else "stale"] = len(stale)
    count = gallery.count + outcomes["created"] - outcomes["pruned"]
    return BuildReport.from_outcomes(outcomes, refused, count=count, started=started)
