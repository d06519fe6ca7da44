"""Views in, clusters out: the Twin Information Bottleneck behind scikit-learn's contract."""

from tib.estimator import TIB
from tib.result import StepReport
from tib.views import MultiView

__all__ = ["TIB", "MultiView", "StepReport"]
