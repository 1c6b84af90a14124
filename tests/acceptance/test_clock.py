"""Slides are picked up and done without file events and while the wall clock jumps by hours, forwards and back."""

import os
import shutil
import subprocess
import time

import pytest

from support.slides import tiled_tissue, write_slide
from wsi_denoise.jobs.states import JobState

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

# Shifts the wall clock, and no other, of every process by the seconds that a file holds now.
SHIFT = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>

static long shift(void)
{
    long seconds = 0;
    const char *name = getenv("SHIFT_FILE");
    FILE *file = name ? fopen(name, "r") : NULL;
    if (file) {
        if (fscanf(file, "%ld", &seconds) != 1) seconds = 0;
        fclose(file);
    }
    return seconds;
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int result = real(clock, now);
    if (!result && clock == CLOCK_REALTIME) now->tv_sec += shift();
    return result;
}
"""


@pytest.fixture
def shifted(tmp_path):
    """Variables for a process whose clock can be shifted, and what shifts it."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler: the clock cannot be shifted")
    source, library, file = tmp_path / "shift.c", tmp_path / "shift.so", tmp_path / "shift"
    source.write_text(SHIFT)
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"], check=True)
    file.write_text("0")

    def shift(seconds: int) -> None:
        part = file.with_suffix(".part")
        part.write_text(str(seconds))
        part.replace(file)

    return {"LD_PRELOAD": str(library), "SHIFT_FILE": str(file)}, shift


def test_a_wall_clock_that_jumps_and_no_events(workplace, shifted):
    variables, shift = shifted
    settings = {"intake": {"events": False}, "tissue": {"mode": "all"}, "jobs": {"lease_seconds": 20.0}}
    place = workplace(settings, variables=variables)
    place.start()
    here = time.time()
    for number, hours in enumerate((0, 3, -3)):
        shift(3600 * hours)
        name = f"slide{number}.tiff"
        file = write_slide(place.inbox / name, tiled_tissue(1800, 200, number))
        if number == 1:
            os.utime(file, (here + 1e6, here + 1e6))
        place.wait_for(name, JobState.QUEUED, JobState.RUNNING, JobState.DONE)
        shift(-3600 * hours)  # and back, while it is worked on
        job = place.done(name)
        assert abs(job.created.timestamp() - here - 3600 * hours) < 1800  # the shift is really there
    jobs = place.jobs()
    assert [job.state for job in jobs] == [JobState.DONE] * 3
    assert [job.attempts for job in jobs] == [1, 1, 1]
    place.stop()
