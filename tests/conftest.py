"""Fixtures that several files' tests share, and what all tests and the processes that they start have around them."""

import os
from collections.abc import Iterator

import pytest

# Tests run side by side, and threads that spin while they wait for each other take the processor from all the others:
# PyTorch's sleep instead, as under the command line, and NumPy's matrices here are too small to be shared out at all.
# Read when the libraries load, by the processes that tests start too.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
# Where nothing keeps what was compiled, each of a hundred processes compiles PyTorch anew and starts half as fast.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """For arrays too small to share out: the tests run side by side."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
