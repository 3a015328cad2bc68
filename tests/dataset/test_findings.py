"""What is found in a collection of images: counted, with a few examples, as text and as JSON."""

from dataset.findings import Finding, Findings


def test_examples_are_few_and_all_are_counted() -> None:
    findings = Findings()
    for number in range(5):
        findings.add("hidden", f".{number}")
    findings.add("empty folder", "hat")
    assert list(findings) == [
        Finding("hidden", 5, (".0", ".1", ".2")),
        Finding("empty folder", 1, ("hat",)),
    ]
    assert len(findings) == 2


def test_two_collections_become_one_with_the_counts_of_both() -> None:
    first, second = Findings(), Findings()
    first.add("hidden", "a")
    for example in ("b", "c", "d"):
        second.add("hidden", example)
    second.add("empty folder", "hat")
    first.extend(second)
    assert first.to_json() == [
        {"reason": "hidden", "count": 4, "examples": ["a", "b", "c"]},
        {"reason": "empty folder", "count": 1, "examples": ["hat"]},
    ]
    assert second.to_json()[0]["count"] == 3, "what was read stays as it was"


def test_json_names_the_most_frequent_first() -> None:
    findings = Findings()
    findings.add("once", "a")
    findings.add("twice", "b")
    findings.add("twice", "c")
    assert [one["reason"] for one in findings.to_json()] == ["twice", "once"]
