"""The whole method, `objective="tib"`: its network, its graph of neighbours, its training."""

from tib.twin.fit import fit
from tib.twin.model import TwinModel as Net

LIST_NAMES = None  # a list of any number of views: view_0, view_1, ...

__all__ = ["LIST_NAMES", "Net", "fit"]
