"""A compaction in a process of its own: its memory and its crashes are not the server's.

The module, run with a gallery's folder and its parent's process id, says on its standard output
what it is doing, one JSON object per line: stages, and at the end what it made or why not.
"""

import argparse
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from files.child_process import ChildProcess, Message, send_message
from files.processes import end_with_parent
from index.errors import RebuildBusyError, RebuildError, VectorIndexError
from index.maintenance.compaction import Compaction, compact
from index.snapshot.segments.generations import Generations
from index.store.store import Store

NICENESS: Final = 10  # whoever serves goes first


class RebuildProcess:
    """One run of the process. ``stop`` may be called from another thread."""

    def __init__(self, gallery: Path, target: float | None = None, tune: bool = False) -> None:
        self._gallery = gallery
        options = [] if target is None else ["--recall", str(target)]  # None: as chosen before
        options += ["--tune"] if tune else []
        self._child = ChildProcess.of(
            "index.maintenance.rebuild_process", str(gallery.absolute()), str(os.getpid()), *options
        )

    def run(self, on_stage: Callable[[str], None]) -> Compaction:
        """Run it to its end and return what it made.

        Raises:
            RebuildBusyError: another process rebuilds this gallery.
            RebuildError: it failed, or was stopped; the gallery is as it was.
        """

        def hear(message: Message) -> None:
            if "stage" in message:
                on_stage(message["stage"])

        try:
            last, status = self._child.run(hear)
        except OSError as error:
            raise RebuildError(_sentence(self._gallery, str(error))) from error
        return _result(last, self._gallery, status)

    def stop(self) -> None:
        """End the process, if it runs: all it did is left out, unless all was written already."""
        self._child.stop()


def main() -> int:
    """Compact the gallery named on the command line, for as long as the given parent lives."""
    parser = argparse.ArgumentParser(prog="index.maintenance.rebuild_process")
    parser.add_argument("gallery", type=Path)
    parser.add_argument("parent", type=int)
    parser.add_argument("--recall", type=float)
    parser.add_argument("--tune", action="store_true")
    arguments = parser.parse_args()
    end_with_parent(arguments.parent)
    os.nice(NICENESS)
    try:
        store = Store.open(arguments.gallery)
        try:
            made = compact(
                store,
                Generations.of(store),
                target=arguments.recall,
                tune=arguments.tune,
                on_stage=lambda stage: send_message({"stage": stage}),
                before_commit=_go_on_to_the_end,
            )
        finally:
            store.close()
    except BlockingIOError:
        send_message({"busy": True})
        return 1
    except (OSError, VectorIndexError, MemoryError) as error:
        send_message({"error": str(error) or type(error).__name__})
        return 1
    send_message({"made": made.to_json()})
    return 0


def _go_on_to_the_end() -> None:
    """From now on there is something to tell: whoever stops this process is late by a moment."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _result(last: dict[str, Any], gallery: Path, status: int) -> Compaction:
    if "made" in last:
        return Compaction.from_json(last["made"])
    if "busy" in last:
        raise RebuildBusyError(f"another process is rebuilding {gallery}")
    why = last.get("error", f"the process ended with status {status}")
    raise RebuildError(_sentence(gallery, why))


def _sentence(gallery: Path, why: str) -> str:
    return f"{gallery} could not be rebuilt, it is as it was: {why}"


if __name__ == "__main__":
    sys.exit(main())
