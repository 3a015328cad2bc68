"""Signals after work with OpenVINO: Ctrl-C is heard, whatever was opened and closed before."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.models import write_model
from tests.support.server.servers import clean_environment
from tests.vision.export.test_export_model import export

HEARD = """
try:
    signal.raise_signal(signal.SIGINT)
except KeyboardInterrupt:
    print("heard")
"""
BEGIN = """
import gc, signal, sys
from pathlib import Path
folder = Path(sys.argv[1])
"""
CLOSED_IN_THE_ORDER_THEY_WERE_OPENED = """
from vision.model.manifest import read_manifest
from vision.inference.openvino_encoder import OpenVinoEncoder
opened = [OpenVinoEncoder.load(folder, read_manifest(folder), threads=1) for _ in range(3)]
while opened:
    del opened[0]
    gc.collect()
"""
EXPORTED = """
from tests.vision.export.test_export_model import export
for precision in ("int8", "fp32"):
    export(folder, precision=precision)
"""


@pytest.mark.parametrize("work", [CLOSED_IN_THE_ORDER_THEY_WERE_OPENED, EXPORTED])
def test_a_signal_is_heard_after(work: str, tmp_path: Path) -> None:
    write_model(tmp_path / "model")
    export(tmp_path / "model", precision="fp32")

    done = subprocess.run(
        [sys.executable, "-c", BEGIN + work + HEARD, str(tmp_path / "model")],
        capture_output=True,
        text=True,
        check=False,
        env=clean_environment(),
        timeout=300,
    )

    assert (done.returncode, done.stdout.splitlines()[-1:]) == (0, ["heard"]), done.stderr
