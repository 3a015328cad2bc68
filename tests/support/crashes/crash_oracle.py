"""What must be stored after a crash, from what was said before it; and how much was not."""

from dataclasses import dataclass, field
from typing import Any

from tests.support.crashes.crash_worker_main import Changes


@dataclass(slots=True)
class CrashCounts:
    """What was seen over all cycles."""

    cycles: int = 0
    acknowledged: int = 0  # calls
    ambiguous: int = 0  # calls that were acknowledged while the power was going
    lost: int = 0  # items that are not as was acknowledged
    phantom: int = 0  # items, or versions of them, that nobody put
    torn: int = 0  # items of two versions, and calls of which a part happened
    in_flight: int = 0  # calls that nobody heard of again
    generations: int = 0  # whole ones, written by workers
    newest: int = 1  # generation there was before the group
    unfinished: int = 0  # what was found of generations that were being written
    wrong: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def __str__(self) -> str:
        return (
            f"{self.cycles} cycles, {self.acknowledged} acknowledged, {self.lost} lost, "
            f"{self.phantom} phantom, {self.torn} torn, {self.ambiguous} ambiguous, "
            f"{self.in_flight} in flight, {self.generations} generations, "
            f"{self.unfinished} unfinished, {len(self.wrong)} wrong, {self.seconds:.0f} s"
        )


class Precondition:
    """What must be stored: the acknowledged, and of each thread some of what it tried since."""

    def __init__(self, stored: dict[str, int]) -> None:
        self.firm: dict[str, int | None] = dict(stored)
        self.open: dict[int, list[Changes]] = {}  # by thread, in order; not known to have happened
        self._seqs: dict[str, int] = {}
        self._tried: set[tuple[str, int | None]] = set(stored.items())  # ever

    def hear(self, events: list[tuple[bool, list[Any]]], counts: CrashCounts) -> None:
        """Take in what a group said."""
        for late, (kind, *said) in events:
            if kind == "try":
                self.open.setdefault(said[0], []).append(said[1])
                self._tried |= set(said[1].items())
            elif kind == "ack" and late:
                counts.ambiguous += 1
            elif kind == "ack":
                counts.acknowledged += 1
                self._acknowledged(self.open[said[0]].pop(), said[1])
            elif kind == "wrong":
                counts.wrong.append(said[0])
            elif kind == "failed" and not late:
                counts.wrong.append(f"refused: {said[0]}")
        counts.in_flight += sum(bool(changes) for changes in self.open.values())

    def compare(self, stored: dict[str, int], counts: CrashCounts) -> None:
        """Count how ``stored`` differs, and expect just that from now on."""
        for item_id in {*self.firm, *stored, *(i for c in self._all_open() for i in c)}:
            there, firm = stored.get(item_id), self.firm.get(item_id)
            tried = [changes[item_id] for changes in self._all_open() if item_id in changes]
            if there == firm or there in tried:
                continue
            if there is not None and (item_id, there) not in self._tried:
                counts.phantom += 1
            else:
                counts.lost += 1
        for changes in self.open.values():
            counts.torn += not self._some_prefix(changes, stored)
        self.firm = dict(stored)
        self.open = {}

    def _acknowledged(self, changes: Changes, seqs: list[int]) -> None:
        for place, (item_id, version) in enumerate(changes.items()):
            seq = seqs[place] if seqs else 0
            if seq and seq < self._seqs.get(item_id, 0):
                continue  # another thread wrote this id later, and was heard sooner
            self._seqs[item_id] = seq
            self.firm[item_id] = version

    def _all_open(self) -> list[Changes]:
        return [changes for of_thread in self.open.values() for changes in of_thread]

    def _some_prefix(self, changes: list[Changes], stored: dict[str, int]) -> bool:
        """Whether the first few of these changes, all of each, explain what is stored."""
        ids = [i for one in changes for i in one if not i.startswith("s")]  # shared: by others too
        state = {item_id: self.firm.get(item_id) for item_id in ids}
        for one in [{}, *changes]:
            state |= {item_id: version for item_id, version in one.items() if item_id in state}
            if all(stored.get(item_id) == version for item_id, version in state.items()):
                return True
        return False
