"""The benchmark on photos: what it learns from, what it keeps aside, and what it prints."""

from pathlib import Path

import pytest

from benchmarks import photos


def write_names(folder: Path, names: list[str]) -> None:
    folder.mkdir(parents=True)
    for name in names:
        (folder / name).write_bytes(name.encode())


def test_a_share_of_each_class_is_kept_aside_by_number(tmp_path: Path) -> None:
    write_names(tmp_path / "0", [f"IMG_{number}.jpg" for number in range(1, 12)])
    write_names(tmp_path / "1", ["b.jpg", "a.jpg"])
    (tmp_path / "README.md").write_text("no class")
    learnt, aside = photos.split_last(photos.read_classes(tmp_path), 0.3)
    assert [path.name for path in aside["0"]] == ["IMG_9.jpg", "IMG_10.jpg", "IMG_11.jpg"]
    assert [len(one) for one in learnt.values()] == [8, 1]
    assert not {*learnt["0"], *learnt["1"]} & {*aside["0"], *aside["1"]}


def test_a_draw_is_the_same_every_time_and_each_seed_gives_another() -> None:
    classes = {"a": [Path(f"a{number}") for number in range(50)], "b": [Path("b0"), Path("b1")]}
    draws = [photos.draw(classes, 10, seed) for seed in (0, 0, 1)]
    assert draws[0] == draws[1]
    assert draws[0] != draws[2]
    assert {len(set(one["a"])) for one in draws} == {10}
    assert draws[0]["b"] == [Path("b0"), Path("b1")], "all that there are"


def test_photos_without_classes_lie_in_one_folder_of_links(tmp_path: Path) -> None:
    for label in ("a", "b"):
        write_names(tmp_path / "data" / label, ["1.jpg", "2.jpg"])
    learnt = photos.read_classes(tmp_path / "data")
    flat = photos.lay_out(learnt, {"a": learnt["a"][:1]}, tmp_path / "links", flat=True)
    assert sorted(path.name for path in flat.iterdir()) == [
        "a-1.jpg",
        "a-2.jpg",
        "b-1.jpg",
        "b-2.jpg",
    ]
    assert (flat / "b-1.jpg").resolve() == tmp_path / "data" / "b" / "1.jpg"
    parts = tmp_path / "links" / "parts"
    assert [path.name for path in sorted((parts / "test" / "a").iterdir())] == ["1.jpg"]


def test_a_row_gives_means_of_several_trainings(capsys: pytest.CaptureFixture[str]) -> None:
    one = photos.Measured(100, 341, 0.8, 0.7, 0.99, 2.0, "lite2")
    photos.print_row("10 a class", [one, one._replace(accuracy=0.9, chosen="lite0")])
    assert capsys.readouterr().out == (
        "| 10 a class | 100 | 341 | 0.850 ± 0.071 | 0.700 | 0.990 | 2.0 | lite0, lite2 |\n"
    )


def test_figures_are_given_with_their_spread() -> None:
    assert photos.spread([0.5, 0.7], 3) == "0.600 ± 0.141"
    assert photos.spread([0.5], 3) == "0.500"
    assert photos.spread([None], 3) == "-"
