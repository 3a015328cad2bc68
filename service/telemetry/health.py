"""Whether a worker can answer, and if not, why: the sentences of ``/readyz`` and ``/livez``.

The probes need no key, so no sentence here names a folder.
"""

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from service.telemetry.watchdog import STUCK_S, Activity, Watchdog

LoadingStage = Literal["model", "gallery", "warm_up"]
LOADING: Final[tuple[LoadingStage, ...]] = ("model", "gallery", "warm_up")
OK: Final = "ok"
# Not the gallery's own sentence, which names its folder.
READ_ONLY: Final = (
    "nothing can be stored: the disk failed, or can only be read, or the gallery is not where it "
    "was; /v1/gallery says which: mend that, then restart the service"
)
_UPKEEP: Final = "the search structure could not be brought up to date; the log says why"
STOPPING: Final = "the service is stopping"
_LOADING_NOW: Final[dict[LoadingStage, str]] = {
    "model": "the model is being loaded",
    "gallery": "the gallery is being loaded",
    "warm_up": "it is warming up",
}
_STUCK_IN: Final[dict[Activity, str]] = {
    "decode": "an image has been decoded",
    "network": "a batch has been in the network",
    "write": "a write has waited for the disk",
}
_PATH: Final = re.compile(r"(?<![\w.])/(?:[^\s/'\"]+/)*([^\s/'\"]+)")


@dataclass(frozen=True, slots=True)
class ServerReadiness:
    """How many of a server's workers can answer."""

    ready: int = 1
    size: int = 1  # workers that there are to be
    has_started: bool = True  # all of them could answer at once before

    @property
    def reason(self) -> str | None:
        """Say how many can answer; ``None``: all."""
        if self.ready >= self.size:
            return None
        count = f"{self.ready} of {self.size} workers can answer"
        if self.has_started:
            return f"{count}; the log says what became of the others"
        return f"the service is still loading: {count}"


class Loading:
    """The stages of loading: the current one, how long those before it took, how it ended."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._started = clock()
        self.seconds: dict[LoadingStage, float] = {}  # of the stages that are over
        self.stage: LoadingStage | None = "model"  # None: all of it is over
        self.failure: str | None = None  # why it will never be over

    def begin(self, stage: LoadingStage) -> None:
        """Note that the stage before has ended, and that ``stage`` begins."""
        self._end_stage()
        self.stage = stage

    def end(self) -> None:
        """Note that everything is loaded."""
        self._end_stage()
        self.stage = None

    def fail(self, sentence: str, *, folders: Sequence[Path]) -> None:
        """Note why it cannot be loaded; ``folders`` are named by their last part alone."""
        self.failure = hide_folders(sentence, folders)

    @property
    def reason(self) -> str | None:
        """Why the service is not loaded, a sentence; ``None``: it is."""
        if self.failure is not None:
            return f"the service cannot start: {self.failure}"
        if self.stage is None:
            return None
        return f"the service is still loading: {self._progress(self.stage)}"

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
                found[stage] = self._progress(stage)
        return found

    def _end_stage(self) -> None:
        if self.stage is not None:
            self.seconds[self.stage] = self._elapsed_s()
        self._started = self._clock()

    def _progress(self, stage: LoadingStage) -> str:
        return f"{_LOADING_NOW[stage]}, for {self._elapsed_s():.1f} s now"

    def _elapsed_s(self) -> float:
        return self._clock() - self._started


def stuck_reason(watchdog: Watchdog, activity: Activity) -> str | None:
    """Return which work is stuck, a sentence; ``None``: none."""
    if not watchdog.is_stuck(activity):
        return None
    return f"{_STUCK_IN[activity]} for more than {STUCK_S:.0f} s; the service needs a restart"


def checks(
    loading: Loading,
    watchdog: Watchdog,
    *,
    is_stopping: bool,
    is_read_only: bool = False,
    has_trouble: bool = False,
    network_reason: str | None = None,
    server: ServerReadiness = ServerReadiness(),
) -> dict[str, str]:
    """Return the checks of ``/readyz``: for each ``ok``, or a sentence that says why not.

    Args:
        loading: how far it is.
        watchdog: what its threads are doing.
        is_stopping: it was told to end.
        is_read_only: its gallery takes no writes any more.
        has_trouble: the last look after the search structure failed.
        network_reason: why the network cannot be reached; None: it can.
        server: of all its workers.
    """
    writing = READ_ONLY if is_read_only else stuck_reason(watchdog, "write")
    return {
        **loading.checks(),
        "decoding": stuck_reason(watchdog, "decode") or OK,
        "network": network_reason or stuck_reason(watchdog, "network") or OK,
        "writing": writing or OK,
        "upkeep": _UPKEEP if has_trouble else OK,
        "workers": server.reason or OK,
        "accepting": STOPPING if is_stopping else OK,
    }


def hide_folders(sentence: str, folders: Sequence[Path]) -> str:
    """Return ``sentence`` with every absolute path cut down to its last part."""
    for folder in sorted(map(str, folders), key=len, reverse=True):
        sentence = sentence.replace(f"{folder}/", "").replace(folder, Path(folder).name)
    return _PATH.sub(r"\1", sentence)
