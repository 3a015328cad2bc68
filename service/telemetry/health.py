"""How far a worker is, and why it does not answer searches: what ``/readyz`` tells.

The probes need no key, so no sentence here names a folder.
"""

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from service.telemetry.watchdog import STUCK_S, Activity, BusyThreads

LoadingStage = Literal["model", "gallery", "warm_up"]
LOADING: Final[tuple[LoadingStage, ...]] = ("model", "gallery", "warm_up")
OK: Final = "ok"
# Not the gallery's own sentence, which names its folder.
READ_ONLY: Final = (
    "nothing can be stored: the disk failed, or can only be read, or the gallery is not where it "
    "was; /v1/gallery says which: mend that, then restart the service"
)
_UPKEEP: Final = "the search structure could not be brought up to date; the log says why"
_STOPPING: Final = "the service is stopping"
_DOES: Final[dict[LoadingStage, str]] = {
    "model": "the model is being loaded",
    "gallery": "the gallery is being loaded",
    "warm_up": "it is warming up",
}
_DOING: Final[dict[Activity, str]] = {
    "decode": "an image has been decoded",
    "network": "a batch has been in the network",
    "write": "a write has waited for the disk",
}
_PATH: Final = re.compile(r"(?<![\w.])/(?:[^\s/'\"]+/)*([^\s/'\"]+)")


@dataclass(frozen=True, slots=True)
class Standing:
    """How many workers of a server can answer."""

    able: int = 1
    size: int = 1  # workers that there are to be
    has_begun: bool = True  # all of them could once

    @property
    def lack(self) -> str | None:
        """Say how many can answer; ``None``: all."""
        if self.able >= self.size:
            return None
        count = f"{self.able} of {self.size} workers can answer"
        if self.has_begun:
            return f"{count}; the log says what became of the others"
        return f"the service is still loading: {count}"


class Loading:
    """The stages of loading: which one goes on, how long those before it took, how it ended."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._begun = clock()
        self.seconds: dict[LoadingStage, float] = {}  # of the stages that are over
        self.stage: LoadingStage | None = "model"  # None: all of it is over
        self.failure: str | None = None  # why it will never be over

    def begin(self, stage: LoadingStage) -> None:
        """Say that the stage before has ended, and that ``stage`` begins."""
        self._end_stage()
        self.stage = stage

    def end(self) -> None:
        """Say that everything is loaded."""
        self._end_stage()
        self.stage = None

    def fail(self, sentence: str, *, folders: Sequence[Path]) -> None:
        """Say why it cannot be loaded; ``folders`` are named by their last part alone."""
        self.failure = without_folders(sentence, folders)

    @property
    def reason(self) -> str | None:
        """Why the service is not loaded, a sentence; ``None``: it is."""
        if self.failure is not None:
            return f"the service cannot start: {self.failure}"
        if self.stage is None:
            return None
        return f"the service is still loading: {_DOES[self.stage]}, for {self._now_s():.1f} s now"

    def checks(self) -> dict[str, str]:
        """Return every stage's ``ok``, or how it stands."""
        found: dict[str, str] = {}
        for stage in LOADING:
            if stage in self.seconds:
                found[stage] = OK
            elif stage != self.stage:
                found[stage] = "waits for what comes before it"
            elif self.failure is not None:
                found[stage] = f"failed: {self.failure}"
            else:
                found[stage] = f"{_DOES[stage]}, for {self._now_s():.1f} s now"
        return found

    def _end_stage(self) -> None:
        if self.stage is not None:
            self.seconds[self.stage] = self._now_s()
        self._begun = self._clock()

    def _now_s(self) -> float:
        return self._clock() - self._begun


def stuck_reason(busy: BusyThreads, activity: Activity) -> str | None:
    """Return what has not ended for too long, a sentence; ``None``: nothing."""
    if not busy.is_stuck(activity):
        return None
    return f"{_DOING[activity]} for more than {STUCK_S:.0f} s; the service needs a restart"


def checks(
    loading: Loading,
    busy: BusyThreads,
    *,
    is_stopping: bool,
    is_read_only: bool = False,
    has_trouble: bool = False,
    standing: Standing = Standing(),
) -> dict[str, str]:
    """Return ``ok``, or a sentence that says why not, for all that an operator may ask of a worker.

    Args:
        loading: how far it is.
        busy: what its threads are at.
        is_stopping: it was told to end.
        is_read_only: its gallery takes no writes any more.
        has_trouble: the last look after the search structure failed.
        standing: of all workers of the server.
    """
    writing = READ_ONLY if is_read_only else stuck_reason(busy, "write")
    return {
        **loading.checks(),
        "decoding": stuck_reason(busy, "decode") or OK,
        "network": stuck_reason(busy, "network") or OK,
        "writing": writing or OK,
        "upkeep": _UPKEEP if has_trouble else OK,
        "workers": standing.lack or OK,
        "accepting": _STOPPING if is_stopping else OK,
    }


def without_folders(sentence: str, folders: Sequence[Path]) -> str:
    """Return ``sentence`` with every absolute path cut down to its last part."""
    for folder in sorted(map(str, folders), key=len, reverse=True):
        sentence = sentence.replace(f"{folder}/", "").replace(folder, Path(folder).name)
    return _PATH.sub(r"\1", sentence)
