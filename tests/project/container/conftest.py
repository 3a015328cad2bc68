"""A model that a CPU can serve without torch."""

import shutil
from pathlib import Path

import pytest

from tests.vision.export.test_export_model import export


@pytest.fixture(scope="package")
def exported(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the small model, with an export."""
    folder = Path(shutil.copytree(model, tmp_path_factory.mktemp("exported") / "model"))
    export(folder)
    return folder
