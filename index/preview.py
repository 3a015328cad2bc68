"""What a build would do, without doing any of it: entries in, a report out."""

import time
from collections import Counter
from collections.abc import Callable, Iterable

from index.build import chunks, find_fault
from index.build_report import BuildReport
from index.edits import decide
from index.gallery import Gallery
from index.origins import Origins
from index.source import Entry


def preview(
    gallery: Gallery,
    entries: Iterable[Entry],
    *,
    source: str,
    on_progress: Callable[[int], None],
    prune: bool,
) -> BuildReport:
    """Return the report that a build would end with, all images being readable.

    Reads every file and decodes none; the arguments are those of ``index.build.build``.
    """
    started = time.perf_counter()
    outcomes: Counter[str] = Counter()
    refused: list[tuple[str, str]] = []
    seen: set[str] = set()
    origins = Origins(gallery.folder, source)
    try:
        for part in chunks(entries):
            ids = [entry.id for entry in part]
            stored, memories = gallery.existing(ids), origins.recall(ids)
            for entry in part:
                decision = decide(entry, stored.get(entry.id), memories.get(entry.id))
                outcomes["kept"] += decision.keeps_edits
                fault = entry.problem or find_fault(entry.id, decision.claim)
                if fault is not None:
                    refused.append((entry.id, fault))
                elif decision.is_unchanged:
                    outcomes["unchanged"] += 1
                else:
                    outcomes["created" if decision.item is None else "replaced"] += 1
            seen.update(ids)
            on_progress(len(part))
        stale = [item_id for item_id in origins.brought() if item_id not in seen]
    finally:
        origins.close()
    outcomes["pruned" if prune else "stale"] = len(stale)
    count = gallery.count + outcomes["created"] - outcomes["pruned"]
    return BuildReport.of(outcomes, refused, count=count, started=started)
