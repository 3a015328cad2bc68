"""Packs the handler and starts TorchServe: https://docs.pytorch.org/serve/batch_inference_with_ts.html"""

import json
import os
import subprocess
import tempfile
from pathlib import Path

HANDLER = Path(__file__).with_name("torchserve_handler.py")
CORES = len(os.sched_getaffinity(0))
BATCHING = {
    "minWorkers": CORES,  # its default on a CPU
    "maxWorkers": CORES,
    "batchSize": 32,
    "maxBatchDelay": 5,  # ms
    "responseTimeout": 120,  # s
}


def main() -> None:
    """Become TorchServe, listening on PORT."""
    folder = Path(tempfile.mkdtemp(prefix="torchserve-"))
    (folder / "model.yaml").write_text(json.dumps(BATCHING))
    archive = ("torch-model-archiver", "--model-name", "classify", "--version", "1.0")
    files = ("--handler", str(HANDLER), "--config-file", str(folder / "model.yaml"))
    subprocess.run([*archive, *files, "--export-path", str(folder)], check=True)
    port = int(os.environ["PORT"])
    addresses = zip(("inference", "management", "metrics"), range(port, port + 3), strict=True)
    lines = [f"{name}_address=http://127.0.0.1:{number}" for name, number in addresses]
    (folder / "config.properties").write_text("\n".join(lines) + "\n")
    os.chdir(folder)  # it writes its logs here
    serve = ("torchserve", "--start", "--foreground", "--ncs", "--model-store", str(folder))
    config = ("--models", "classify=classify.mar", "--ts-config", str(folder / "config.properties"))
    os.execvp(serve[0], [*serve, *config, "--disable-token-auth"])


if __name__ == "__main__":
    main()
