"""What holds for every test, the examples in docstrings included."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # two threads of one process wait for each other on a busy machine

from hypothesis import settings

# How long an example takes says nothing about a shared machine; under CI the same examples are drawn every time.
settings.register_profile("brinell", deadline=None, derandomize=bool(os.environ.get("CI")))
settings.load_profile("brinell")
