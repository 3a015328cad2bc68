"""A wall clock that jumps: of one process and its children, by hours, whenever a file says so.

A library that the dynamic linker puts before libc (LD_PRELOAD) adds what the file holds to the real
time; clocks that nobody can set stay as they are.
"""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Final

import pytest

_SOURCE: Final = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>
#include <fcntl.h>
#include <sys/mman.h>

static long shift(void) {
    static volatile const long *hours;
    if (!hours) {
        int file = open(getenv("SHIFT_FILE"), O_RDONLY);
        if (file < 0) return 0;
        hours = mmap(0, sizeof(long), PROT_READ, MAP_SHARED, file, 0);
    }
    return hours == MAP_FAILED ? 0 : *hours * 3600;
}

int clock_gettime(clockid_t clock, struct timespec *found) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int failed = real(clock, found);
    if (clock == CLOCK_REALTIME) found->tv_sec += shift();
    return failed;
}

int gettimeofday(struct timeval *found, void *zone) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    found->tv_sec = now.tv_sec;
    found->tv_usec = now.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *found) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (found) *found = now.tv_sec;
    return now.tv_sec;
}
"""


class ShiftedClock:
    """The wall clock of processes that are started with ``environment``."""

    def __init__(self, folder: Path) -> None:
        """Build the library; skip where there is no compiler."""
        compiler = shutil.which("cc")
        if compiler is None:
            pytest.skip("there is no C compiler: a clock that jumps was NOT tried")
        self._file = folder / "hours"
        library = folder / "clock.so"
        (folder / "clock.c").write_text(_SOURCE)
        build = [compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(folder / "clock.c")]
        subprocess.run([*build, "-ldl"], check=True)
        self._file.write_bytes(bytes(8))
        self.environment = {"LD_PRELOAD": str(library), "SHIFT_FILE": str(self._file)}

    def jump_to(self, hours: int) -> None:
        """Set the clock so many hours off the real time."""
        with self._file.open("r+b") as file:
            os.pwrite(file.fileno(), hours.to_bytes(8, "little", signed=True), 0)
