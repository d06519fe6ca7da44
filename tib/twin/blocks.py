"""The clips in random blocks, read when they are needed: all that training ever holds of them.

Shapes: N clips, n clips of a block, M modalities, E dims, k neighbours, R restarts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import overload

import torch
from torch import Tensor

from tib.twin.graph import n_neighbours, nearest
from tib.twin.projection import Projection, fill_gaps, present_rows
from tib.views import View

BLOCK = 6000  # clips at most: a graph of neighbours takes time and memory by the square of it
KEPT = 1000  # blocks whose neighbours are kept once found, half a MB each


@dataclass(frozen=True, slots=True)
class Block:
    """Clips that may be each other's neighbours.

    Attributes:
        views: (n, E_m) each, finite, gaps filled in.
        present: (M, n) bool, False where filled in.
        neighbours: (n, k) int64 places in the block, nearest first; the clip's own where it has fewer.
    """

    views: list[Tensor]
    present: Tensor
    neighbours: Tensor


class Blocks(Sequence[Block]):
    """All clips in random blocks of one size, each read, projected and its graph made when it is asked for.

    Fewer clips than there are blocks may be left over by the division; they are clustered, and not learned from.

    Args:
        views: name -> (N, D).
        projections: name -> its projection, on the device to train on.
        generator: on the CPU.
    Attributes:
        rows: (blocks, n) which clips, in ascending order.
    """

    def __init__(
        self, views: Mapping[str, View], projections: Mapping[str, Projection], generator: torch.Generator
    ) -> None:
        self.views, self.projections = views, projections
        n_clips = len(next(iter(views.values())))
        count = -(-n_clips // BLOCK)
        order = torch.randperm(n_clips, generator=generator)
        self.rows = order[: count * (n_clips // count)].view(count, -1).sort(1).values
        self._neighbours: dict[int, Tensor] = {}

    @property
    def size(self) -> int:
        """n."""
        return self.rows.shape[1]

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, index: int) -> Block: ...
    @overload
    def __getitem__(self, index: slice) -> list[Block]: ...
    def __getitem__(self, index: int | slice) -> Block | list[Block]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        rows = self.rows[index].numpy()
        device = next(iter(self.projections.values())).mean.device
        given = [torch.from_numpy(view[rows]).to(device) for view in self.views.values()]
        present = torch.stack([present_rows(view) for view in given])
        inputs = [self.projections[name](view) for name, view in zip(self.views, given, strict=True)]
        neighbours = self._neighbours_of(index, inputs, present)
        inputs = [fill_gaps(view, have, neighbours) for view, have in zip(inputs, present, strict=True)]
        return Block(inputs, present, neighbours)

    def _neighbours_of(self, index: int, inputs: list[Tensor], present: Tensor) -> Tensor:
        known = self._neighbours.get(index)
        if known is None:
            known = nearest(inputs, list(present), n_neighbours(self.size)).to(torch.int16)
            if len(self._neighbours) < KEPT:
                self._neighbours[index] = known
        return known.long()


class Window:
    """The blocks that the restarts are at, side by side in memory: restart r is first at block r, its home, then at
    the next one, round and round.

    As all go on at once, a block is read once for all restarts that come by, and no more blocks are held than there
    are homes, however many there are in all.

    Args:
        blocks: of one size.
        restarts: R.
        most_homes: restarts beyond so many begin where the earlier ones do.
    Attributes:
        views, present, neighbours: of the blocks held: (S·n, E_m) each, (M, S·n), (S·n, k).
        offsets: (R,) the row where each restart's block begins.
        visit: how many blocks each restart has left behind.
    """

    def __init__(self, blocks: Sequence[Block], restarts: int, most_homes: int = 12) -> None:
        self.blocks, self.visit = blocks, 0
        self.homes = min(len(blocks), restarts, most_homes)
        first = blocks[0]
        self.size = len(first.neighbours)
        self.views = [view.repeat(self.homes, 1) for view in first.views]
        self.present = first.present.repeat(1, self.homes)
        self.neighbours = first.neighbours.repeat(self.homes, 1)
        self.home = torch.arange(restarts, device=self.present.device) % self.homes
        self._held = [0] * self.homes
        self.go_to(0)

    def go_to(self, visit: int) -> None:
        """Each restart to the block that comes so many after its home."""
        self.visit = visit
        for home in range(self.homes):
            place = home + visit
            self._hold(place % self.homes, place % len(self.blocks))
        self.offsets = (self.home + visit) % self.homes * self.size

    def _hold(self, slot: int, index: int) -> None:
        if self._held[slot] == index:
            return
        block, rows = self.blocks[index], slice(slot * self.size, (slot + 1) * self.size)
        for held, view in zip(self.views, block.views, strict=True):
            held[rows] = view
        self.present[:, rows], self.neighbours[rows] = block.present, block.neighbours
        self._held[slot] = index
