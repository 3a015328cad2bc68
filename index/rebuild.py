"""A compaction in a process of its own: its memory and its crashes are not the server's.

The module, run with a gallery's folder and its parent's process id, says on its standard output
what it is doing, one JSON object per line: stages, and at the end what it made or why not.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from index.compaction import Compaction, compact
from index.errors import RebuildBusyError, RebuildError, VectorIndexError
from index.generations import Generations
from index.measure import Trial
from index.parent import end_with_parent
from index.plan import Plan
from index.process import module_command, module_environment
from index.store import Store

NICENESS: Final = 10  # whoever serves goes first


@dataclass(slots=True, eq=False)
class Rebuild:
    """One run of the process. ``stop`` may be called from another thread."""

    gallery: Path
    target: float | None = None  # recall@10; None: as chosen before
    tune: bool = False
    _process: "subprocess.Popen[str] | None" = None
    _stopped: bool = False

    def run(self, on_stage: Callable[[str], None]) -> Compaction:
        """Run it to its end and return what it made.

        Raises:
            RebuildBusyError: another process rebuilds this gallery.
            RebuildError: it failed, or was stopped; the gallery is as it was.
        """
        command = module_command("index.rebuild", str(self.gallery.absolute()), str(os.getpid()))
        if self.target is not None:
            command += ["--recall", str(self.target)]
        if self.tune:
            command += ["--tune"]
        try:
            self._process = subprocess.Popen(
                command,
                stdout=subprocess.PIPE,
                text=True,
                errors="replace",
                env=module_environment(),
                process_group=0,  # Ctrl-C reaches who started it, and ends it with ``stop``
            )
        except OSError as error:
            raise RebuildError(_sentence(self.gallery, str(error))) from error
        with self._process as process:
            if self._stopped:
                process.terminate()
            assert process.stdout is not None
            last: dict[str, Any] = {}
            try:
                for line in process.stdout:
                    message = _message(line)
                    last = message or last
                    if "stage" in message:
                        on_stage(message["stage"])
            except (
                BaseException
            ) as error:  # of ``on_stage``, or an interrupt: nobody waits for it any more
                process.terminate()
                rest = [_message(line) for line in process.stdout]
                last = rest[-1] if rest else {}
                if "made" not in last or not isinstance(error, Exception):
                    raise  # else whoever stopped it came too late
        return _result(last, self.gallery, process.returncode)

    def stop(self) -> None:
        """End the process, if it runs: all it did is left out, unless all was written already."""
        self._stopped = True
        if self._process is not None:
            self._process.terminate()


def main() -> int:
    """Compact the gallery named on the command line, for as long as the given parent lives."""
    parser = argparse.ArgumentParser(prog="index.rebuild")
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
                on_stage=lambda stage: _say({"stage": stage}),
                before_commit=_go_on_to_the_end,
            )
        finally:
            store.close()
    except BlockingIOError:
        _say({"busy": True})
        return 1
    except (OSError, VectorIndexError, MemoryError) as error:
        _say({"error": str(error) or type(error).__name__})
        return 1
    _say({"made": asdict(made)})
    return 0


def _go_on_to_the_end() -> None:
    """From now on there is something to tell: whoever stops this process is late by a moment."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _say(message: dict[str, Any]) -> None:
    try:
        sys.stdout.write(json.dumps(message) + "\n")
        sys.stdout.flush()
    except BrokenPipeError:  # whoever wanted the structure is gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


def _message(line: str) -> dict[str, Any]:
    """Return what a line says; nothing when the process was killed amid it, or it is not ours."""
    try:
        message = json.loads(line)
    except ValueError:
        return {}
    return message if isinstance(message, dict) else {}


def _result(last: dict[str, Any], gallery: Path, status: int) -> Compaction:
    if "made" in last:
        made = last["made"]
        trials = [
            Trial(Plan.from_json(trial["plan"]), trial["reached"], trial["build_s"])
            for trial in made["trials"]
        ]
        return Compaction(
            made["generation"],
            made["seq"],
            made["count"],
            Plan.from_json(made["plan"]),
            tuple(trials),
        )
    if "busy" in last:
        raise RebuildBusyError(f"another process is rebuilding {gallery}")
    why = last.get("error", f"the process ended with status {status}")
    raise RebuildError(_sentence(gallery, why))


def _sentence(gallery: Path, why: str) -> str:
    return f"{gallery} could not be rebuilt, it is as it was: {why}"


if __name__ == "__main__":
    sys.exit(main())
