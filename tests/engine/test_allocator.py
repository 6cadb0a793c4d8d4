"""Freed memory is kept: the system is not asked for the same pages again."""

import subprocess
import sys

import pytest

from brinell.engine.allocator import keep_freed_memory

BATCHES = """
import resource, sys
import torch
if sys.argv[1] == "keep":
    from brinell.engine.allocator import keep_freed_memory
    assert keep_freed_memory()
torch.set_num_threads(1)
for batch in range(40):
    if batch == 30:  # until then the blocks that are free have grown together
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    made = torch.ones(16_000_000)
    del made
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how):
    return int(subprocess.run((sys.executable, "-c", BATCHES, how), stdout=subprocess.PIPE, text=True, check=True).stdout)


@pytest.mark.slow
def test_freed_memory_is_kept():
    if not keep_freed_memory():
        pytest.skip("this system's C library is not glibc")
    pages = 16_000_000 * 4 // 4096
    assert faults("keep") < pages < 5 * pages < faults("give back")
