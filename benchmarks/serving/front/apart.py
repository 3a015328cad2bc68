"""`lookalike serve` with the network in a process of its own on a machine without a GPU.

    python -m benchmarks.serving.front.apart benchmarks.serving.front.stand_in serve --model …

The first argument is the module that is run in place of ``service.encoding.program``, which itself
is one; the others are those of `lookalike`. The supervisor runs in this process, which decides as
on a machine with a GPU. For tests and benchmarks: no option of the product leads here.
"""

import os
import runpy
import sys
from collections.abc import Mapping, Sequence

import service.server.worker_count
from service.encoding import supervision


def main() -> None:
    """Serve."""
    supervision.PROGRAM = sys.argv.pop(1)  # type: ignore[misc]
    service.server.worker_count.has_encoder_process = lambda settings: True
    os.execve = _run_here  # type: ignore[assignment]
    from cli.main import main as lookalike  # noqa: PLC0415 - after what it is to see

    lookalike()


def _run_here(path: str, command: Sequence[str], environment: Mapping[str, str]) -> None:
    """Run BentoML in this process, where `lookalike serve` would replace it."""
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["bentoml", *command[command.index("bentoml") + 1 :]]
    runpy.run_module("bentoml", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
