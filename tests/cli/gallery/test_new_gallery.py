"""A gallery that a command makes may be a typing error, so that it is told."""

from pathlib import Path

import numpy as np
import pytest

from tests.support.commands.run_command import lookalike
from vision.model.manifest import read_manifest


@pytest.mark.parametrize("was_there", [False, True], ids=["new", "empty folder"])
def test_an_import_says_once_that_the_gallery_is_new(
    tmp_path: Path, model: Path, was_there: bool
) -> None:
    width = read_manifest(model).architecture.width
    np.save(tmp_path / "v.npy", np.eye(3, width, dtype=np.float32))
    (tmp_path / "ids.txt").write_text("a\nb\nc\n")
    folder = tmp_path / "galery"
    if was_there:
        folder.mkdir()
    command = ["index", "import", str(folder), "v.npy", "--ids", "ids.txt", "--model", str(model)]

    first, second = (lookalike(*command, cwd=tmp_path).stderr for _ in range(2))

    assert f"made the new gallery {folder}" in first
    assert ("the folder was there, and empty: is its disk mounted?" in first) == was_there
    assert "made the new gallery" not in second
