"""What networks are built of. Every parameter has a leading R axis, so that R restarts train side by side in one graph.

Shapes: R restarts, N clips, D embedding, K clusters. A layer maps (R, N, D_in) to (R, N, D_out) and never mixes two
restarts. There is no training mode: what updates running statistics is a call of its own, so that predicting in the
middle of training changes nothing.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

BATCH_NORM_MOMENTUM = 0.1
SIGMA_FLOOR = 1e-7


class Moments(NamedTuple):
    """Mean and unbiased variance of a batch, each (R, D)."""

    mean: Tensor
    var: Tensor


class BatchedLinear(nn.Module):
    """R linear layers at once: (R, N, D_in) -> (R, N, D_out). Filled by its owner, not here."""

    def __init__(self, restarts: int, dim_in: int, dim_out: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(restarts, dim_out, dim_in, dtype=dtype))
        self.bias = nn.Parameter(torch.zeros(restarts, dim_out, dtype=dtype))

    def forward(self, x: Tensor) -> Tensor:
        if len(self.weight) == 1:
            # One restart takes torch.nn.Linear's own product: the same rounding, so the published run to the bit.
            return F.linear(x[0], self.weight[0], self.bias[0]).unsqueeze(0)
        return torch.baddbmm(self.bias.unsqueeze(1), x, self.weight.transpose(1, 2))


class BatchedBatchNorm(nn.Module):
    """R batch normalisations over N, each with running statistics of its own."""

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, restarts: int, dim: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(restarts, dim, dtype=dtype))
        self.bias = nn.Parameter(torch.zeros(restarts, dim, dtype=dtype))
        self.register_buffer("running_mean", torch.zeros(restarts, dim, dtype=dtype))
        self.register_buffer("running_var", torch.ones(restarts, dim, dtype=dtype))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (R, N, D) by the running statistics."""
        return self._normalise(x, Moments(self.running_mean, self.running_var), by_batch=False)

    def by_batch(self, x: Tensor) -> tuple[Tensor, Moments]:
        """Normalise (R, N, D) by its own moments, which are returned and not tracked; N >= 2."""
        moments = Moments(torch.zeros_like(self.running_mean), torch.zeros_like(self.running_var))
        return self._normalise(x, moments, by_batch=True), moments

    def track(self, moments: Moments) -> None:
        """Move the running statistics a step towards a batch's moments."""
        self.running_mean.lerp_(moments.mean, BATCH_NORM_MOMENTUM)
        self.running_var.lerp_(moments.var, BATCH_NORM_MOMENTUM)

    def _normalise(self, x: Tensor, moments: Moments, *, by_batch: bool) -> Tensor:
        restarts, clips, dim = x.shape
        # The R·D channels lie side by side, (N, R·D): torch's fused kernel then serves all restarts in one call.
        # With momentum 1 it leaves the batch's own moments where the running ones would be.
        flat = F.batch_norm(
            x.transpose(0, 1).reshape(clips, restarts * dim),
            moments.mean.view(-1),
            moments.var.view(-1),
            self.weight.view(-1),
            self.bias.view(-1),
            training=by_batch,
            momentum=1.0,
        )
        return flat.view(clips, restarts, dim).transpose(0, 1)


class GaussianEncoder(nn.Module):
    """Linear-BN-ReLU twice, then a linear layer that gives the mean and the spread of q(z|x)."""

    def __init__(self, restarts: int, dim: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.linear_1 = BatchedLinear(restarts, dim, dim, dtype)
        self.norm_1 = BatchedBatchNorm(restarts, dim, dtype)
        self.linear_2 = BatchedLinear(restarts, dim, dim, dtype)
        self.norm_2 = BatchedBatchNorm(restarts, dim, dtype)
        self.gaussian = BatchedLinear(restarts, dim, 2 * dim, dtype)

    def forward(self, x: Tensor) -> Tensor:
        """(R, N, D) to hidden (R, N, D), normalised by the running statistics."""
        hidden = torch.relu(self.norm_1(self.linear_1(x)))
        return torch.relu(self.norm_2(self.linear_2(hidden)))

    def by_batch(self, x: Tensor) -> tuple[Tensor, tuple[Moments, Moments]]:
        """(R, N, D) to hidden (R, N, D), normalised by the batch; with the moments, for `track`."""
        hidden, moments_1 = self.norm_1.by_batch(self.linear_1(x))
        hidden, moments_2 = self.norm_2.by_batch(self.linear_2(torch.relu(hidden)))
        return torch.relu(hidden), (moments_1, moments_2)

    def track(self, moments: tuple[Moments, Moments]) -> None:
        """Update the running statistics of both layers as one forward pass in training does."""
        self.norm_1.track(moments[0])
        self.norm_2.track(moments[1])

    def distribution(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Hidden (R, N, D) to μ and σ > 0 of q(z|x), each (R, N, D)."""
        mu, sigma = self.gaussian(hidden).chunk(2, dim=-1)
        return mu, F.softplus(sigma) + SIGMA_FLOOR
