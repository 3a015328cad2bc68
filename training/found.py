"""A dataset in, all that was skipped, merged, guessed or left out of it in one collection out."""

from typing import TYPE_CHECKING

from dataset.findings import Findings

if TYPE_CHECKING:
    from training.data import Dataset


def findings_of(dataset: "Dataset") -> Findings:
    """Return what was found when ``dataset`` was listed, decoded and divided into parts."""
    findings = Findings()
    findings.extend(dataset.findings)
    findings.add_alike(
        (f"left out, since it is no readable image: {reason}", str(path))
        for path, reason in dataset.unreadable
    )
    for leak in dataset.leaked:
        findings.add(
            f"left out of {leak.part}, since the same image is in {leak.twin_part}",
            f"{leak.name} and {leak.twin}",
        )
    for name, twin in dataset.contradictions:
        findings.add("the same image with two labels: both stay", f"{name} and {twin}")
    return findings
