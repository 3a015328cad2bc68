"""An image in figures: sizes, seconds from its start to ready, memory when it waits.

``python -m benchmarks.serving.container --starts 5 -- --cgroups=disabled`` runs lookalike:cpu as
docs/container.md does, with what stands behind ``--`` as further options of the engine. It wants a
quiet machine.
"""

import argparse
import gzip
import statistics
import subprocess
import time

from scripts.container.engine import image_name, pick_engine, run

HARDENED = (
    *("--read-only", "--tmpfs", "/tmp", "--cap-drop", "all"),
    *("--security-opt", "no-new-privileges", "--network", "none"),
)
READY_S = 120
# Proportional set sizes of the processes, largest first, in KiB (proc_pid_smaps_rollup).
MEMORY = """
import pathlib
for one in pathlib.Path("/proc").glob("[0-9]*/smaps_rollup"):
    try:
        lines = one.read_text().splitlines()
        command = (one.parent / "cmdline").read_bytes()
    except OSError:
        continue
    if b"-c" not in command.split(bytes(1))[:4]:
        print(next(line.split()[1] for line in lines if line.startswith("Pss:")))
"""


def compressed_bytes(engine: str, image: str) -> int:
    """Return the size of an image's archive, compressed as registries do."""
    archive = subprocess.run([engine, "save", image], capture_output=True, check=True).stdout
    return len(gzip.compress(archive, 6))


def measure_start(engine: str, image: str, options: list[str]) -> tuple[float, list[int]]:
    """Return the seconds from ``run`` to being healthy, and each process's memory in KiB."""
    began = time.perf_counter()
    name = run(engine, "run", "--detach", *HARDENED, *options, image)
    try:
        while subprocess.run(
            [engine, "exec", name, "python", "-I", "/app/health.py"],
            capture_output=True,
            check=False,
        ).returncode:
            if time.perf_counter() - began > READY_S:
                raise TimeoutError(run(engine, "logs", name))
        took_s = time.perf_counter() - began
        time.sleep(2)
        said = run(engine, "exec", name, "python", "-I", "-c", MEMORY)
        return took_s, sorted(map(int, said.split()), reverse=True)
    finally:
        run(engine, "rm", "--force", "--volumes", name)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kind", choices=("cpu", "gpu"), default="cpu")
    parser.add_argument("--engine", default="")
    parser.add_argument("--starts", type=int, default=5)
    parser.add_argument("options", nargs="*", help="of the engine, behind --")
    given = parser.parse_args()
    engine, image = pick_engine(given.engine), image_name(given.kind)
    size = int(run(engine, "image", "inspect", "--format", "{{.Size}}", image))
    starts = [measure_start(engine, image, given.options) for _ in range(given.starts)]
    took = sorted(one for one, _ in starts)
    memory = starts[-1][1]
    print(f"{image}: {size / 1e6:.0f} MB, {compressed_bytes(engine, image) / 1e6:.0f} compressed")
    print(f"start to ready: {statistics.median(took):.2f} s ({took[0]:.2f} to {took[-1]:.2f})")
    print(f"memory: {sum(memory) / 1024:.0f} MiB, of processes {[one // 1024 for one in memory]}")


if __name__ == "__main__":
    main()
