"""Rebuilds a gallery's structure from its database: read, measure, build, write a generation.

Searches and writes go on meanwhile, in the processes that serve.

Shape suffixes: N rows, D vector width.
"""

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from index.errors import StorageError
from index.search.ann_index import Structure
from index.search.autotune import Trial, measure
from index.search.index_spec import EASY_EFFORT, EXACT, EXACT_ROWS, RECALL, Plan, candidates
from index.search.tuning_sample import Sample, hold_out
from index.search.unindexed_rows import strays_of
from index.search.vector_matrix import Matrix
from index.snapshot.segments.generations import Generations
from index.store.store import Store

SETTING: Final = "plan"  # in the database: what was tuned, and over how many rows
TARGET: Final = "recall"  # in the database: what was asked for last
OUTGROWN: Final = 4  # times as many rows, or as few: what was tuned no longer counts
LEAST_ROWS: Final = 1_000  # fewer cannot be measured, and need no structure
logger = logging.getLogger("lookalike.index")

Progress = Callable[[str], None]  # called with the stage that begins


@dataclass(frozen=True, slots=True)
class Compaction:
    """What a compaction made."""

    generation: int
    seq: int  # it holds everything up to this operation
    count: int
    plan: Plan
    trials: tuple[Trial, ...]  # what was measured on the way, the chosen one included


@dataclass(frozen=True, slots=True)
class TunedPlan:
    """What was the quickest when it was measured, over so many rows."""

    plan: Plan
    rows: int

    def suits(self, rows: int) -> bool:
        """Whether it can still be believed when there are ``rows`` now."""
        small = min(rows, self.rows) < EXACT_ROWS <= max(rows, self.rows)
        return not small and self.rows / OUTGROWN <= rows <= self.rows * OUTGROWN

    def before(self, ladder: Sequence[Plan], *, rows: int) -> list[Plan]:
        """Return the structures to try over ``rows`` rows, this one first where it still suits.

        How hard it must look is measured anew: another recall may be asked for by now.
        """
        if not self.suits(rows):
            return list(ladder)
        mine = replace(self.plan, effort=0, k_factor=0.0)
        return [mine, *(plan for plan in ladder if plan.factory != mine.factory)]

    def to_json(self) -> str:
        """Return it as it is stored."""
        return json.dumps({"plan": self.plan.to_json(), "rows": self.rows})


def compact(
    store: Store,
    generations: Generations,
    *,
    target: float | None = None,
    tune: bool = False,
    on_stage: Progress,
    before_commit: Callable[[], None] = lambda: None,
) -> Compaction:
    """Build the structure anew over everything stored, and write it as the next generation.

    Args:
        store: of the gallery.
        generations: of the same gallery.
        target: recall@10 to reach; ``None`` keeps what was asked for before.
        tune: measure all structures that are worth trying and take the quickest, instead of the
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
        chosen = stored_plan(store)
        settings = {} if target is None else {TARGET: str(target)}  # remembered in the end
        if target is None:
            target = float(store.setting(TARGET) or RECALL)
        on_stage("measuring")
        if len(keys_N) < LEAST_ROWS:
            matrix, structure, trials = Matrix.of(vectors_ND), None, tuple[Trial, ...]()
        else:
            keys_N, sample = hold_out(keys_N, vectors_ND, target=target)
            matrix = sample.matrix
            del vectors_ND
            wanted = candidates(len(keys_N), store.binding.width)
            tuned = None if tune else chosen
            if tuned is not None:
                wanted = tuned.before(wanted, rows=len(keys_N))
            structure, trials = _choose(
                sample, wanted, target=target, all_of_them=tune, tuned=tuned
            )
        plan = _best(trials).plan if trials else replace(EXACT, recall_target=target)
        if structure is not None:
            structure = structure.completed()
            structure = structure.with_strays(strays_of(structure))
        plan = replace(plan, note=_note(plan, trials, None if tune else chosen, len(keys_N)))
        if plan.note:
            logger.warning("%s: %s", store.folder, plan.note)
        on_stage("writing")
        if tune:
            settings[SETTING] = TunedPlan(plan, len(keys_N)).to_json()
        generations.write(
            number,
            store=store,
            seq=seq,
            keys_N=keys_N,
            matrix=matrix,
            plan=plan,
            structure=structure,
            settings=settings,
            before_commit=before_commit,
        )
        generations.prune(store)
    try:
        store.cut_log(generations.oldest_seq())
    except StorageError as error:  # the structure is in use already, and the next one cuts more
        logger.warning("the log of %s was not cut: %s", store.folder, error)
    return Compaction(number, seq, len(keys_N), plan, trials)


def stored_plan(store: Store) -> TunedPlan | None:
    """Return the plan that was tuned for this gallery, if any."""
    text = store.setting(SETTING)
    if text is None:
        return None
    stored = json.loads(text)
    return TunedPlan(Plan.from_json(stored["plan"]), stored["rows"])


def _choose(
    sample: Sample,
    wanted: Sequence[Plan],
    *,
    target: float,
    all_of_them: bool,
    tuned: TunedPlan | None,
) -> tuple[Structure | None, tuple[Trial, ...]]:
    """Return the first structure that reaches the recall, or the quickest of all; and trials."""
    trials: list[Trial] = []
    best: Structure | None = None
    for plan in wanted:
        trial, structure = measure(plan, sample, target=target)
        trials.append(trial)
        if _best(trials) is trial:
            best = structure
        easy = trial.plan.effort <= EASY_EFFORT.get(plan.kind, 0)
        was_quickest = tuned is not None and tuned.plan.factory == plan.factory
        if trial.reached and (easy or was_quickest) and not all_of_them:
            break
    return best, tuple(trials)


def _best(trials: Sequence[Trial]) -> Trial:
    """Return the quickest that reached its recall; exact search always does."""
    reached = [trial for trial in trials if trial.reached] or list(trials[:1])
    return min(reached, key=lambda trial: trial.plan.microseconds or 0.0)


def _note(plan: Plan, trials: Sequence[Trial], tuned: TunedPlan | None, rows: int) -> str:
    """Return what became of what was tuned, and why everything is scanned; mostly nothing."""
    notes = []
    if tuned is not None and not tuned.suits(rows):
        notes.append(
            f"what was tuned over {tuned.rows:,} items no longer suits {rows:,}: "
            "the usual structures were tried; tune again"
        )
    elif tuned is not None and plan.factory != tuned.plan.factory:
        notes.append(
            f"the tuned structure ({tuned.plan.kind}) does not reach recall {plan.recall_target:g} "
            f"any more, so {plan.kind} was taken; tune again"
        )
    missed = [trial.plan for trial in trials if not trial.reached]
    if plan.kind == "exact" and missed:
        best = max(missed, key=lambda one: one.recall_low or 0.0)
        notes.append(
            f"every search looks at every item: no structure is sure to reach recall "
            f"{plan.recall_target:g}; the best, {best.kind}, reached {best.recall:.4f}, "
            f"at least {best.recall_low:.4f}"
        )
    return "; ".join(notes)
