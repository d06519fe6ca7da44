"""Views in, clusters out: the Twin Information Bottleneck behind scikit-learn's contract."""

from tib.estimator import TIB
from tib.train import EpochReport

__all__ = ["TIB", "EpochReport"]
