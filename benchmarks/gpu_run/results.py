"""What was measured, one JSON line each as it comes: a run that is cut off has told most."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

NAME = "results.jsonl"
WHOLE = 100  # from here on figures are shown without a fraction


@dataclass(frozen=True)
class Result:
    """One figure, or one sentence about why there is none."""

    section: str
    what: str
    value: float | None
    unit: str = ""
    note: str = ""
    reach: str = ""  # what is asked of it

    def row(self) -> str:
        """Return it as a row of a Markdown table."""
        shown = "none"
        if self.value is not None:
            digits = 0 if abs(self.value) >= WHOLE else 3
            shown = f"{self.value:,.{digits}f} {self.unit}".rstrip()
        cells = (self.section, self.what, shown, self.reach, self.note)
        return "| " + " | ".join(cell.replace("|", "/").replace("\n", " ") for cell in cells) + " |"


class Results:
    """The file of results of one run, which several processes append to one after another."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / NAME

    def add(
        self, section: str, what: str, value: float | None, unit: str = "", **more: str
    ) -> None:
        """Append a result, and print it."""
        result = Result(section, what, value, unit, **more)
        with self._path.open("a") as file:
            file.write(json.dumps(asdict(result)) + "\n")
        print(result.row(), flush=True)

    def all(self) -> list[Result]:
        """Return what is there by now."""
        if not self._path.exists():
            return []
        return [Result(**json.loads(line)) for line in self._path.read_text().splitlines()]

    def value(self, section: str, what: str) -> float | None:
        """Return a figure that was measured before; None: it was not."""
        found = [r.value for r in self.all() if (r.section, r.what) == (section, what)]
        return found[-1] if found else None

    def table(self) -> str:
        """Return all of it as a Markdown table."""
        head = "| section | what | measured | to reach | note |\n|---|---|---|---|---|"
        return "\n".join([head, *(result.row() for result in self.all())])
