"""What a fit of the whole method leaves: projections, the restarts kept, and how their clusters match.

Shapes: N clips, M modalities, R restarts kept, K clusters.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn

from tib.twin.net import TwinNet
from tib.twin.objective import fuse, pairs_present
from tib.twin.projection import Projection, present_rows
from tib.views import row_slices

CHUNK = 4096  # clips a forward pass


class TwinModel(nn.Module):
    """The consensus of R restarts, for any clips.

    Args:
        projections: view name -> its projection.
        net: R restarts, with the moments that predicting normalises by.
    """

    columns: Tensor

    def __init__(self, projections: Mapping[str, Projection], net: TwinNet) -> None:
        super().__init__()
        self.projections = nn.ModuleDict({_key(index): p for index, p in enumerate(projections.values())})
        self.names = list(projections)
        self.net = net
        matched = torch.arange(net.n_clusters).repeat(net.restarts, 1)
        self.register_buffer("columns", matched)  # (R, K) the restart's cluster that is cluster k of the consensus

    @property
    def description(self) -> dict[str, Any]:
        """What `from_description` makes an empty one of the same shapes from; JSON."""
        shapes = {
            name: list(self.projections[_key(m)].get_buffer("directions").shape) for m, name in enumerate(self.names)
        }
        return {"projections": shapes, "n_clusters": self.net.n_clusters, "restarts": self.net.restarts}

    @classmethod
    def from_description(cls, description: Mapping[str, Any], dtype: torch.dtype) -> Self:
        shapes = description["projections"]
        net = TwinNet([kept for _, kept in shapes.values()], description["n_clusters"], description["restarts"], dtype)
        return cls({name: Projection(dim, kept, dtype) for name, (dim, kept) in shapes.items()}, net)

    @torch.no_grad()
    def posteriors(self, views: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """The mean over restarts of p(cluster | clip), by all modalities at once and by each alone.

        Args:
            views: name -> (N, D); a row of NaN is a clip without that modality.
        Returns:
            (N, K); name -> (N, K), rows of NaN where the modality is missing.
        """
        fused, alone, _ = self.said(views)
        return fused, alone

    @torch.no_grad()
    def said(self, views: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        """What `posteriors` gives, and (R, N) what each restart alone says, in the clusters of the consensus.

        Only a chunk's posteriors by restart are ever in memory.
        """
        inputs, present = self._inputs(views)
        chunks = []
        for each_fused, each_alone in _chunks(self.net, inputs, present):
            each_fused = self._matched(each_fused)
            chunks.append((each_fused.mean(0), self._matched(each_alone).mean(0), each_fused.argmax(-1)))
        fused, alone, labels = (
            torch.cat(parts, axis) for parts, axis in zip(zip(*chunks, strict=True), (0, 1, 1), strict=True)
        )
        alone = alone.masked_fill(~present.unsqueeze(-1), torch.nan)  # (M, N, K)
        return fused, dict(zip(self.names, alone, strict=True)), labels

    def _inputs(self, views: Mapping[str, Tensor]) -> tuple[list[Tensor], Tensor]:
        """Projected views, 0 where missing, and (M, N) which are there."""
        given = [views[name] for name in self.names]
        present = torch.stack([present_rows(view) for view in given])
        return [self.projections[_key(m)](view).nan_to_num(nan=0.0) for m, view in enumerate(given)], present

    def _matched(self, posteriors: Tensor) -> Tensor:
        """(R, ..., K) with the clusters in the order of the consensus."""
        order = self.columns.view(self.net.restarts, *[1] * (posteriors.ndim - 2), -1)
        return posteriors.gather(-1, order.expand_as(posteriors))


@torch.no_grad()
def restart_posteriors(net: TwinNet, views: Sequence[Tensor], present: Tensor) -> tuple[Tensor, Tensor]:
    """p(cluster | clip) of each restart by itself, with the moments kept.

    Args:
        views: (N, E_m) each, finite; present: (M, N) bool.
    Returns:
        (R, N, K) by all modalities; (R, M, N, K) by each alone, whatever where it is missing.
    """
    fused, alone = zip(*_chunks(net, views, present), strict=True)
    return torch.cat(fused, 1), torch.cat(alone, 2)


def _chunks(net: TwinNet, views: Sequence[Tensor], present: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    for rows in row_slices(present.shape[1], CHUNK):
        yield _chunk_posteriors(net, [view[rows] for view in views], present[:, rows])


def _chunk_posteriors(net: TwinNet, views: Sequence[Tensor], present: Tensor) -> tuple[Tensor, Tensor]:
    inputs = [view.expand(net.restarts, *view.shape) for view in views]
    logits = net(inputs, by_batch=False).logits  # (R, P, K, 2, N)
    weights = pairs_present(present.to(logits.dtype).expand(net.restarts, *present.shape), net.pairs)
    fused = fuse(logits, weights).softmax(1).transpose(1, 2)
    own = []
    for modality in range(len(views)):
        sides = [logits[:, p, :, pair.index(modality)] for p, pair in enumerate(net.pairs) if modality in pair]
        own.append(torch.stack(sides).mean(0).softmax(1).transpose(1, 2))
    return fused, torch.stack(own, 1)


def _key(index: int) -> str:
    return f"view_{index}"  # a view's name may hold what a module's name must not
