"""A current folder full of files that Python would import in place of what is meant."""

from pathlib import Path
from typing import Final

NAMES: Final = (
    *("index", "vision", "service", "training", "cli", "tests"),
    *("json", "logging", "asyncio", "typing", "numpy", "faiss", "apsw", "bentoml", "uvicorn"),
    *("sitecustomize", "usercustomize", "runpy", "multiprocessing"),
)


def set_traps(folder: Path) -> Path:
    """Fill ``folder`` with them, and return the file that any of them would write when imported."""
    sprung = folder / "sprung.txt"
    body = f"open({str(sprung)!r}, 'a').write(__name__ + '\\n')\nraise SystemExit(77)\n"
    folder.mkdir(exist_ok=True)
    for number, name in enumerate(NAMES):
        if number % 2:
            (folder / name).mkdir()
            (folder / name / "__init__.py").write_text(body)
        else:
            (folder / f"{name}.py").write_text(body)
    return sprung
