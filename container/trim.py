"""Removes from installed packages what the service never loads. A folder and lists of patterns in.

A pattern that matches nothing is a fault: a package has changed, and its list with it.
"""

import shutil
import sys
from pathlib import Path


def main(folder: Path, lists: list[Path]) -> int:
    """Remove what the patterns of ``lists`` match below ``folder``; return the exit code."""
    lines = [
        line.partition("#")[0].strip() for one in lists for line in one.read_text().splitlines()
    ]
    stale = []
    for pattern in filter(None, lines):
        found = list(folder.glob(pattern))
        if not found:
            stale.append(pattern)
        for path in found:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
    for pattern in stale:
        sys.stderr.write(f"{pattern} matches nothing\n")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), [Path(one) for one in sys.argv[2:]]))
