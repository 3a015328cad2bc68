"""Rebuilds a gallery's ANN index from its database: read, measure, build, write a generation.

Searches and writes go on meanwhile, in the processes that serve.

Shape suffixes: N rows, D vector width.
"""

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Self

from index.errors import StorageError
from index.search.ann_index import AnnIndex
from index.search.autotune import TuningTrial, autotune
from index.search.index_spec import (
    EASY_SEARCH_DEPTH,
    EXACT,
    EXACT_ROWS,
    RECALL,
    IndexSpec,
    candidate_specs,
)
from index.search.tuning_sample import Sample, hold_out
from index.search.vector_matrix import Matrix
from index.snapshot.segments.generations import Generations
from index.store.store import Store

SETTING: Final = "plan"  # in the database: what was tuned, and over how many rows
TARGET: Final = "recall"  # in the database: what was asked for last
OUTGROWN: Final = 4  # times as many rows, or as few: what was tuned no longer counts
LEAST_ROWS: Final = 1_000  # fewer cannot be measured, and need no ANN index
logger = logging.getLogger("lookalike.index")

Progress = Callable[[str], None]  # called with the stage that begins


@dataclass(frozen=True, slots=True)
class Compaction:
    """What a compaction made."""

    generation: int
    seq: int  # it holds everything up to this operation
    count: int
    spec: IndexSpec
    trials: tuple[TuningTrial, ...]  # what was measured on the way, the chosen one included

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON, in the words that commands have printed since 0.4."""
        trials = [
            {"plan": trial.spec.to_json(), "reached": trial.reached, "build_s": trial.build_s}
            for trial in self.trials
        ]
        return {
            "generation": self.generation,
            "seq": self.seq,
            "count": self.count,
            "plan": self.spec.to_json(),
            "trials": trials,
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        """Return what ``to_json`` described."""
        trials = tuple(
            TuningTrial(IndexSpec.from_json(trial["plan"]), trial["reached"], trial["build_s"])
            for trial in value["trials"]
        )
        spec = IndexSpec.from_json(value["plan"])
        return cls(value["generation"], value["seq"], value["count"], spec, trials)


@dataclass(frozen=True, slots=True)
class TunedSpec:
    """What was the quickest when it was measured, over so many rows."""

    spec: IndexSpec
    rows: int

    def suits(self, rows: int) -> bool:
        """Whether it can still be believed when there are ``rows`` now."""
        small = min(rows, self.rows) < EXACT_ROWS <= max(rows, self.rows)
        return not small and self.rows / OUTGROWN <= rows <= self.rows * OUTGROWN

    def before(self, ladder: Sequence[IndexSpec], *, rows: int) -> list[IndexSpec]:
        """Return the ANN indexes to try over ``rows`` rows, this one first where it still suits.

        How hard it must look is measured anew: another recall may be asked for by now.
        """
        if not self.suits(rows):
            return list(ladder)
        mine = replace(self.spec, search_depth=0, k_factor=0.0)
        return [mine, *(spec for spec in ladder if spec.description != mine.description)]

    def to_json(self) -> str:
        """Return it as it is stored."""
        return json.dumps({"plan": self.spec.to_json(), "rows": self.rows})


def compact(
    store: Store,
    generations: Generations,
    *,
    target: float | None = None,
    tune: bool = False,
    on_stage: Progress,
    before_commit: Callable[[], None] = lambda: None,
) -> Compaction:
    """Build the ANN index anew over everything stored, and write it as the next generation.

    Args:
        store: of the gallery.
        generations: of the same gallery.
        target: recall@10 to reach; ``None`` keeps what was asked for before.
        tune: measure all ANN indexes that are worth trying and take the quickest, instead of the
            one that was chosen before, or else the first that reaches the recall.
        on_stage: told what begins.
        before_commit: called when all is written, before it counts.

    Until all is written nothing has changed: neither what is searched, nor what is remembered of
    ``target`` and of what was tuned.

    Raises:
        BlockingIOError: another process is at it.
        OSError: the generation could not be written; nothing of it is left.
        GalleryFolderError, StorageError: the database cannot be read.
    """
    with generations.writing():
        number = generations.begin(store)
        on_stage("reading")
        seq, keys_N, vectors_ND = store.load()
        chosen = stored_spec(store)
        settings = {} if target is None else {TARGET: str(target)}  # remembered in the end
        if target is None:
            target = float(store.setting(TARGET) or RECALL)
        on_stage("measuring")
        if len(keys_N) < LEAST_ROWS:
            matrix, ann_index, trials = Matrix.of(vectors_ND), None, tuple[TuningTrial, ...]()
        else:
            keys_N, sample = hold_out(keys_N, vectors_ND, target=target)
            matrix = sample.matrix
            del vectors_ND
            wanted = candidate_specs(len(keys_N), store.binding.width)
            tuned = None if tune else chosen
            if tuned is not None:
                wanted = tuned.before(wanted, rows=len(keys_N))
            ann_index, trials = _choose(
                sample, wanted, target=target, all_of_them=tune, tuned=tuned
            )
        spec = _best(trials).spec if trials else replace(EXACT, recall_target=target)
        if ann_index is not None:
            ann_index = ann_index.completed()
            ann_index = ann_index.with_unindexed_rows()
        spec = replace(spec, note=_note(spec, trials, None if tune else chosen, len(keys_N)))
        if spec.note:
            logger.warning("%s: %s", store.folder, spec.note)
        on_stage("writing")
        if tune:
            settings[SETTING] = TunedSpec(spec, len(keys_N)).to_json()
        generations.write(
            number,
            store=store,
            seq=seq,
            keys_N=keys_N,
            matrix=matrix,
            spec=spec,
            ann_index=ann_index,
            settings=settings,
            before_commit=before_commit,
        )
        generations.prune(store)
    try:
        store.cut_log(generations.oldest_seq())
    except StorageError as error:  # the ANN index is in use already, and the next one cuts more
        logger.warning("the log of %s was not cut: %s", store.folder, error)
    return Compaction(number, seq, len(keys_N), spec, trials)


def stored_spec(store: Store) -> TunedSpec | None:
    """Return the spec that was tuned for this gallery, if any."""
    text = store.setting(SETTING)
    if text is None:
        return None
    stored = json.loads(text)
    return TunedSpec(IndexSpec.from_json(stored["plan"]), stored["rows"])


def _choose(
    sample: Sample,
    wanted: Sequence[IndexSpec],
    *,
    target: float,
    all_of_them: bool,
    tuned: TunedSpec | None,
) -> tuple[AnnIndex | None, tuple[TuningTrial, ...]]:
    """Return the first ANN index that reaches the recall, or the quickest of all; and trials."""
    trials: list[TuningTrial] = []
    best: AnnIndex | None = None
    for spec in wanted:
        trial, ann_index = autotune(spec, sample, target=target)
        trials.append(trial)
        if _best(trials) is trial:
            best = ann_index
        easy = trial.spec.search_depth <= EASY_SEARCH_DEPTH.get(spec.kind, 0)
        was_quickest = tuned is not None and tuned.spec.description == spec.description
        if trial.reached and (easy or was_quickest) and not all_of_them:
            break
    return best, tuple(trials)


def _best(trials: Sequence[TuningTrial]) -> TuningTrial:
    """Return the quickest that reached its recall; exact search always does."""
    reached = [trial for trial in trials if trial.reached] or list(trials[:1])
    return min(reached, key=lambda trial: trial.spec.microseconds or 0.0)


def _note(
    spec: IndexSpec, trials: Sequence[TuningTrial], tuned: TunedSpec | None, rows: int
) -> str:
    """Return what became of what was tuned, and why everything is scanned; mostly nothing."""
    notes = []
    if tuned is not None and not tuned.suits(rows):
        notes.append(
            f"what was tuned over {tuned.rows:,} items no longer suits {rows:,}: "
            "the usual structures were tried; tune again"
        )
    elif tuned is not None and spec.description != tuned.spec.description:
        notes.append(
            f"the tuned structure ({tuned.spec.kind}) does not reach recall {spec.recall_target:g} "
            f"any more, so {spec.kind} was taken; tune again"
        )
    missed = [trial.spec for trial in trials if not trial.reached]
    if spec.kind == "exact" and missed:
        best = max(missed, key=lambda one: one.recall_low or 0.0)
        notes.append(
            f"every search looks at every item: no structure is sure to reach recall "
            f"{spec.recall_target:g}; the best, {best.kind}, reached {best.recall:.4f}, "
            f"at least {best.recall_low:.4f}"
        )
    return "; ".join(notes)
