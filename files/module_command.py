"""How a module of this package is run in a process of its own. A module in, a command out.

Whatever lies in the current folder is never imported: a folder of images may well hold an
``index.py``, a ``json/`` or a ``sitecustomize.py``.
"""

import os
import sys
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]  # what this very package was imported from
# Where the package was not installed its folder is no part of the path yet. It comes after Python's
# own library, so that nothing beside the package stands in for that, and before all others.
_RUN: Final = (
    "import runpy, sys; root = sys.argv.pop(1)\n"
    "own = [path for path in sys.path if not path.endswith('-packages')]\n"
    "if root not in sys.path: sys.path.insert(len(own), root)\n"
    "runpy.run_module(sys.argv.pop(1), run_name='__main__', alter_sys=True)"
)


def module_command(module: str, *arguments: str) -> list[str]:
    """Return the command that runs ``module`` of this package with ``arguments``."""
    return [sys.executable, "-P", "-c", _RUN, str(ROOT), module, *arguments]


def module_environment(**extra: str) -> dict[str, str]:
    """Return this process's environment for such a command, with ``extra`` variables.

    ``PYTHONPATH`` loses what stands for the current folder; children of the child inherit that.
    """
    given = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    paths = [path for path in given if Path(path).is_absolute()]
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    if paths:
        kept["PYTHONPATH"] = os.pathsep.join(paths)
    return {**kept, "PYTHONSAFEPATH": "1", **extra}
