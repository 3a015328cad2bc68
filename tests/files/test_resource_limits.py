"""What a cgroup grants is what a process counts on: the kernel's files, and a real cgroup."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import pytest

from files.module_command import module_environment
from files.resource_limits import (
    THREAD_VARIABLES,
    ResourceLimits,
    limit_threads,
    resource_limits,
    usable_cores,
)
from tests.support.paths import ROOT

MEMINFO = "MemTotal:       16000000 kB\nMemFree:         1000000 kB\n"
MACHINE = 16_000_000 * 1024
UNLIMITED = "9223372036854771712\n"  # of version 1
V2 = "30 23 0:26 / /sys/fs/cgroup ro,nosuid shared:9 - cgroup2 cgroup rw,nsdelegate\n"
V1 = (
    "31 23 0:27 {root} /sys/fs/cgroup/cpu,cpuacct ro - cgroup cgroup rw,cpu,cpuacct\n"
    "32 23 0:28 {root} /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n"
)
OLD_QUOTA, OLD_PERIOD = "cpu.cfs_quota_us", "cpu.cfs_period_us"


def machine(root: Path, cgroup: str, mounts: str, files: dict[str, str]) -> Path:
    """Write what the kernel shows of a machine; ``files`` lie below /sys/fs/cgroup."""
    shown = {f"sys/fs/cgroup/{name}": text for name, text in files.items()}
    own = {"cgroup": cgroup, "mountinfo": mounts}
    shown |= {f"proc/self/{name}": text for name, text in own.items()} | {"proc/meminfo": MEMINFO}
    for name, text in shown.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def found(root: Path) -> tuple[int, int | None]:
    limits = resource_limits(root, processors=8)
    return limits.cores, limits.memory_bytes


@pytest.mark.parametrize(
    ("quota", "cores"),
    [
        ("max 100000", 8),
        ("800000 100000", 8),
        ("1600000 100000", 8),
        ("200000 100000", 2),
        ("150000 100000", 2),
        ("120000 100000", 1),
        ("50000 100000", 1),
        ("1000 100000", 1),
        ("125000 50000", 3),
    ],
)
def test_a_quota_of_version_2_is_rounded_to_whole_cores(
    tmp_path: Path, quota: str, cores: int
) -> None:
    files = {"cpu.max": f"{quota}\n", "memory.max": "max\n"}
    assert found(machine(tmp_path, "0::/\n", V2, files)) == (cores, MACHINE)


def test_each_cgroup_above_limits_too(tmp_path: Path) -> None:
    files = {
        "pods/cpu.max": "200000 100000\n",
        "pods/memory.max": "1073741824\n",
        "pods/one/cpu.max": "400000 100000\n",
        "pods/one/memory.max": "max\n",
    }
    assert found(machine(tmp_path, "0::/pods/one\n", V2, files)) == (2, 2**30)


OWN = {
    f"cpu,cpuacct/{{}}{OLD_QUOTA}": "300000\n",
    f"cpu,cpuacct/{{}}{OLD_PERIOD}": "100000\n",
    "memory/{}memory.limit_in_bytes": "536870912\n",
}


@pytest.mark.parametrize(
    ("path", "root", "folder"),
    [
        ("/docker/abc", "/docker/abc", ""),  # a container sees its own part only
        ("/docker/abc", "/", "docker/abc/"),  # the machine itself sees all
        ("/", "/", ""),  # a namespace of cgroups
        ("/../../abc", "/", ""),  # begun outside its namespace
        ("/docker/abc", "/elsewhere", ""),
    ],
)
def test_limits_of_version_1_are_found_wherever_it_is_mounted(
    tmp_path: Path, path: str, root: str, folder: str
) -> None:
    cgroup = f"12:memory:{path}\n5:cpu,cpuacct:{path}\n1:name=systemd:{path}\n0::/\n"
    files = {name.format(folder): text for name, text in OWN.items()}
    shown = machine(tmp_path, cgroup, V1.format(root=root), files)

    assert found(shown) == (3, 2**29)


def test_without_limits_it_is_the_machine(tmp_path: Path) -> None:
    files = {
        f"cpu,cpuacct/{OLD_QUOTA}": "-1\n",
        f"cpu,cpuacct/{OLD_PERIOD}": "100000\n",
        "memory/memory.limit_in_bytes": UNLIMITED,
    }
    shown = machine(tmp_path, "3:memory:/\n2:cpu,cpuacct:/\n", V1.format(root="/"), files)
    assert found(shown) == (8, MACHINE)
    assert str(resource_limits(shown, processors=8)) == (
        "8 cores (8 processors, no CPU quota), 15,625 MiB of memory (no limit of the cgroup)"
    )
    nothing = resource_limits(tmp_path / "none", processors=8)
    assert (nothing.cores, nothing.memory_bytes) == (8, None)
    assert str(nothing) == "8 cores (8 processors, no CPU quota), memory unknown"


def test_libraries_are_told_the_quota_and_what_a_person_set_stays(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    environment = {"OMP_NUM_THREADS": "7"}
    limits = ResourceLimits(8, cpu_quota=2.0, machine_bytes=None, cgroup_bytes=None)
    monkeypatch.setattr("files.resource_limits.resource_limits", lambda: limits)
    limit_threads(environment)
    assert environment == dict.fromkeys(THREAD_VARIABLES, "2") | {"OMP_NUM_THREADS": "7"}

    unlimited = ResourceLimits(8, cpu_quota=None, machine_bytes=None, cgroup_bytes=None)
    monkeypatch.setattr("files.resource_limits.resource_limits", lambda: unlimited)
    assert usable_cores() == 8
    free: dict[str, str] = {}
    limit_threads(free)
    assert free == {}


@contextmanager
def real_cgroup(controller: str, limits: dict[str, str]) -> Iterator[Path]:
    """Make a cgroup of version 1; skip where that is not possible."""
    group = Path("/sys/fs/cgroup") / controller / f"lookalike-{uuid4().hex[:8]}"
    try:
        group.mkdir()
    except OSError:
        pytest.skip(f"no cgroup of {controller} can be made here: a real one was NOT tried")
    try:
        for name, text in limits.items():
            (group / name).write_text(text)
        yield group
    finally:
        group.rmdir()


def test_a_process_in_a_real_cgroup_finds_its_limits() -> None:
    # Half a processor: one core, also where this machine has many.
    quota = {OLD_PERIOD: "100000", OLD_QUOTA: "50000"}
    asked = (
        "import os, pathlib, sys\n"
        "for group in sys.argv[1:]:\n"
        "    pathlib.Path(group, 'cgroup.procs').write_text(str(os.getpid()))\n"
        "from files.resource_limits import resource_limits\n"
        "found = resource_limits()\n"
        "print(found.cores, found.cpu_quota, found.memory_bytes)\n"
    )
    with (
        real_cgroup("cpu", quota) as cpu,
        real_cgroup("memory", {"memory.limit_in_bytes": str(2**28)}) as memory,
    ):
        told = subprocess.run(
            [sys.executable, "-c", asked, str(cpu), str(memory)],
            check=True,
            capture_output=True,
            text=True,
            cwd=ROOT,
            env=module_environment() | {"PYTHONPATH": str(ROOT), "PYTHONSAFEPATH": ""},
            timeout=60,
        )
    assert told.stdout.split() == ["1", "0.5", str(2**28)]
