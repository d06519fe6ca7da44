"""What a benchmark's figures were measured on."""

import os
from typing import Any

import torch

from pipeline import hardware
from pipeline.provenance import arithmetic


def machine() -> dict[str, Any]:
    """Processor, cores, PyTorch and what it computes with, and what else the machine did just before."""
    return {
        **arithmetic(),
        "cores": hardware.usable_cores(),
        "torch": torch.__version__,
        "load": os.getloadavg()[0],
    }
