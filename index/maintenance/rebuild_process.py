"""A compaction in a process of its own: its memory and its crashes are not the server's.

The module reports the stages of the work, and at the end what it made or why not
(``files.child_process``).
"""

import json
import signal
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Final

from files.child_process import ChildProcess, Message, send_message, serve_parent
from index.errors import RebuildBusyError, RebuildError, VectorIndexError
from index.maintenance.compaction import Compaction, compact
from index.snapshot.segments.generations import Generations
from index.store.store import Store

NICENESS: Final = 10  # whoever serves goes first


class RebuildProcess(ChildProcess):
    """One run of the process. Stopped, it leaves all it did out, unless all was written already."""

    def __init__(self, gallery: Path, target: float | None = None, tune: bool = False) -> None:
        """Start nothing yet; ``target`` and ``tune`` are those of ``compact``."""
        options = json.dumps({"target": target, "tune": tune})
        super().__init__("index.maintenance.rebuild_process", str(gallery.absolute()), options)
        self._gallery = gallery

    def run(self, on_stage: Callable[[str], None]) -> Compaction:
        """Run it to its end and return what it made.

        Raises:
            RebuildBusyError: another process rebuilds this gallery.
            RebuildError: it failed, or was stopped; the gallery is as it was.
        """

        def on_message(message: Message) -> None:
            if "stage" in message:
                on_stage(message["stage"])

        try:
            last, status = self.listen(on_message)
        except OSError as error:
            last, status = {"error": str(error)}, 1
        if "made" in last:
            return Compaction.from_json(last["made"])
        if "busy" in last:
            raise RebuildBusyError(f"another process is rebuilding {self._gallery}")
        why = last.get("error", f"the process ended with status {status}")
        raise RebuildError(f"{self._gallery} could not be rebuilt, it is as it was: {why}")


def main() -> int:
    """Compact the gallery named on the command line, for as long as the parent lives."""
    return serve_parent(_compact, niceness=NICENESS)


def _compact(gallery: str, options: str) -> Message:
    try:
        with closing(Store.open(Path(gallery))) as store:
            made = compact(
                store,
                Generations.of(store),
                **json.loads(options),
                on_stage=lambda stage: send_message({"stage": stage}),
                before_commit=_ignore_termination,
            )
    except BlockingIOError:
        return {"busy": True}
    except (OSError, VectorIndexError, MemoryError) as error:
        return {"error": str(error) or type(error).__name__}
    return {"made": made.to_json()}


def _ignore_termination() -> None:
    """From now on there is something to tell: whoever stops this process is late by a moment."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


if __name__ == "__main__":
    sys.exit(main())
