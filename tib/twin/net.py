"""The whole method's network: Φ for each pair of modalities, Ψ and the clustering layer for all.

Shapes: R restarts, P = M(M-1)/2 pairs, L rows of a batch, H width, Z bottleneck, K clusters. Rows come last, (R, D, L):
batch normalisation then works on memory as it lies, for all restarts, pairs and modalities in one call.
"""

from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tib.group import ALONE, Group

WIDTH = 64
BOTTLENECK = 32
SIGMA_FLOOR = 1e-4
BN_EPS = 1e-5


class Encoded(NamedTuple):
    """What a batch becomes: logits (R, P, K, 2, L), mu and sigma (R, P, Z, 2, L); 2 = the pair's two modalities."""

    logits: Tensor
    mu: Tensor
    sigma: Tensor


class PairNorm(nn.Module):
    """Batch normalisation of (G, D, 2·L): each of the two modalities by its own moments, one scale and shift for both.

    Args:
        own: groups that have a scale and shift of their own, G or a divisor of it (Ψ: one for all pairs).
        groups: G.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, own: int, groups: int, dim: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(own, dim, dtype=dtype))
        self.bias = nn.Parameter(torch.zeros(own, dim, dtype=dtype))
        self.register_buffer("running_mean", torch.zeros(groups, dim, 2, dtype=dtype))
        self.register_buffer("running_var", torch.ones(groups, dim, 2, dtype=dtype))

    def forward(self, x: Tensor, *, by_batch: bool, keep: bool, group: Group = ALONE) -> Tensor:
        groups, dim, rows = x.shape
        repeats = groups // len(self.weight)

        def spread(parameter: Tensor) -> Tensor:
            return parameter[:, None, :, None].expand(-1, repeats, dim, 2).reshape(-1)

        if by_batch and not group.alone:
            scaled = _standardised(x.view(-1, rows // 2), group) * spread(self.weight)[:, None]
            return (scaled + spread(self.bias)[:, None]).view(groups, dim, rows)
        flat = F.batch_norm(
            x.reshape(1, groups * dim * 2, rows // 2),
            self.running_mean.view(-1) if keep or not by_batch else None,
            self.running_var.view(-1) if keep or not by_batch else None,
            spread(self.weight),
            spread(self.bias),
            training=by_batch,
            momentum=1.0,  # the last batch's moments, when kept: of all the training clips
            eps=BN_EPS,
        )
        return flat.view(groups, dim, rows)


def _standardised(x: Tensor, group: Group) -> Tensor:
    """(C, L), what batch normalisation makes of a batch of which the group's other processes have the rest."""
    rows = x.shape[1]
    centred = x - group.mean(x.mean(1), rows)[:, None]
    return centred * (group.mean(centred.square().mean(1), rows) + BN_EPS).rsqrt()[:, None]


class TwinNet(nn.Module):
    """R networks side by side, none sharing a parameter with another.

    Args:
        dims: M >= 2 input dims, in the order of the views.
    """

    def __init__(self, dims: Sequence[int], n_clusters: int, restarts: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.pairs = list(combinations(range(len(dims)), 2))
        groups = restarts * len(self.pairs)

        def matrix(count: int, out: int, into: int) -> nn.Parameter:
            return nn.Parameter(torch.zeros(count, out, into, dtype=dtype))

        self.adapters = nn.ParameterList([matrix(restarts, WIDTH, dim) for dim in dims])
        self.phi_1, self.phi_2 = matrix(groups, WIDTH, WIDTH), matrix(groups, WIDTH, WIDTH)
        self.phi_norm_1 = PairNorm(groups, groups, WIDTH, dtype)
        self.phi_norm_2 = PairNorm(groups, groups, WIDTH, dtype)
        self.phi_3, self.phi_3_bias = matrix(groups, 2 * BOTTLENECK, WIDTH), matrix(groups, 2 * BOTTLENECK, 1)
        self.psi_1, self.psi_2 = matrix(restarts, WIDTH, BOTTLENECK), matrix(restarts, WIDTH, WIDTH)
        self.psi_norm_1 = PairNorm(restarts, groups, WIDTH, dtype)
        self.psi_norm_2 = PairNorm(restarts, groups, WIDTH, dtype)
        self.clusters, self.clusters_bias = matrix(restarts, n_clusters, WIDTH), matrix(restarts, n_clusters, 1)

    @property
    def restarts(self) -> int:
        return len(self.psi_1)

    @property
    def n_clusters(self) -> int:
        return self.clusters.shape[1]

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        """Weights from N(0, 1 / inputs), in the order of the parameters; norms 1, biases 0."""
        for name, parameter in self.named_parameters():
            if parameter.ndim == 3 and not name.endswith("_bias"):
                parameter.normal_(0.0, parameter.shape[-1] ** -0.5, generator=generator)

    def forward(
        self,
        views: Sequence[Tensor],
        noise: Tensor | None = None,
        *,
        by_batch: bool = True,
        keep: bool = False,
        group: Group = ALONE,
    ) -> Encoded:
        """Encode a batch.

        Args:
            views: (R, L, E_m) each, finite.
            noise: (P, Z, 2, L), the draw of z = mu + sigma * noise, the same for all restarts; None gives z = mu.
            by_batch: normalise by the batch's own moments, else by those kept.
            keep: keep the batch's moments; of a batch that is not shared.
            group: who has the rest of the batch.
        """
        count, rows = len(self.pairs), views[0].shape[1]
        inputs = [torch.bmm(adapter, x.transpose(1, 2)) for adapter, x in zip(self.adapters, views, strict=True)]
        stacked = torch.stack([torch.stack([inputs[a], inputs[b]], 2) for a, b in self.pairs], 1)  # (R, P, H, 2, L)
        x = stacked.view(self.restarts * count, WIDTH, 2 * rows)

        def normed(norm: PairNorm, x: Tensor) -> Tensor:
            return F.relu(norm(x, by_batch=by_batch, keep=keep, group=group), inplace=True)

        x = normed(self.phi_norm_1, torch.bmm(self.phi_1, x))
        x = normed(self.phi_norm_2, torch.bmm(self.phi_2, x))
        mu, spread = torch.baddbmm(self.phi_3_bias, self.phi_3, x).split(BOTTLENECK, 1)
        sigma = F.softplus(spread) + SIGMA_FLOOR
        z = mu
        if noise is not None:
            draw = noise.reshape(1, count, BOTTLENECK, 2 * rows).expand(self.restarts, -1, -1, -1)
            z = torch.addcmul(mu, sigma, draw.reshape(mu.shape))
        x = normed(self.psi_norm_1, torch.bmm(self._all_pairs(self.psi_1), z))
        x = normed(self.psi_norm_2, torch.bmm(self._all_pairs(self.psi_2), x))
        logits = torch.baddbmm(self._all_pairs(self.clusters_bias), self._all_pairs(self.clusters), x)
        shape = (self.restarts, count, -1, 2, rows)
        return Encoded(logits.view(shape), mu.reshape(shape), sigma.view(shape))

    def _all_pairs(self, parameter: Tensor) -> Tensor:
        """(R, ...) to (R·P, ...): one parameter for every pair of a restart."""
        shared = parameter[:, None].expand(-1, len(self.pairs), *parameter.shape[1:])
        return shared.reshape(-1, *parameter.shape[1:])

    def take(self, restarts: Sequence[int]) -> "TwinNet":
        """Some restarts alone, in the order given, with a copy of their state."""
        net = TwinNet(
            [adapter.shape[2] for adapter in self.adapters], self.n_clusters, len(restarts), self.psi_1.dtype
        ).to(self.psi_1.device)
        index = torch.as_tensor(restarts, device=self.psi_1.device)
        net.load_state_dict(
            {name: self._by_restart(value)[index].flatten(0, 1) for name, value in self.state_dict().items()}
        )
        return net

    def keep_moments(self, views: Sequence[Tensor]) -> None:
        """Normalise by the moments of these clips, (N, E_m) each, from now on; a restart at a time, to spare memory."""
        with torch.no_grad():
            for restart in range(self.restarts):
                single = self.take([restart])
                single([view.unsqueeze(0) for view in views], keep=True)
                for name, value in self.named_buffers():
                    self._by_restart(value)[restart] = single.get_buffer(name)

    def _by_restart(self, value: Tensor) -> Tensor:
        """(R, n, ...): a restart's groups side by side."""
        return value.view(self.restarts, -1, *value.shape[1:])
