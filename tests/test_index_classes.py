"""Labels that items were given in a gallery become the classes of a model."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner, Result

from cli.commands import app
from index.gallery import Gallery
from tests.models import write_model
from tests.pictures import png
from vision.encoder import Encoder
from vision.manifest import WEIGHTS_NAME, read_manifest

LABELS = ("Δελτα", "अ", "box", "خط", "雪")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(one) for one in arguments])
