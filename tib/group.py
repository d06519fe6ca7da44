"""The processes that train one model together, or this one alone: all that they ever exchange goes through here.

Each process takes its share of a batch's anchors; every sum over the batch is a sum over the group. What a process
alone computes is then what the group computes: with one process nothing here does anything.
"""

from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor, distributed, nn


class Group:
    """Of `size` processes; this is the one with this `rank`.

    `sum` and `mean` are differentiable. Their gradient is that of the sum of all processes' losses: each process
    scales its own, which is the whole batch's loss, by 1 / size before it goes back (`shared_loss`), and then adds up
    the parameters' gradients with the others (`add_gradients`).
    """

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank, self.size = rank, size

    @classmethod
    def current(cls) -> Self:
        """That of torch.distributed where it is initialised (`torchrun`), else this process alone."""
        if not (distributed.is_available() and distributed.is_initialized()):
            return cls()
        return cls(distributed.get_rank(), distributed.get_world_size())

    @property
    def alone(self) -> bool:
        return self.size == 1

    @property
    def first(self) -> bool:
        """Whether this is the process that writes files and calls back."""
        return self.rank == 0

    def share(self, count: int) -> slice:
        """Which of `count` things are this process'; the shares differ by one at most."""
        return slice(self.rank * count // self.size, (self.rank + 1) * count // self.size)

    def sum(self, values: Tensor) -> Tensor:
        """Over the processes, element by element."""
        return values if self.alone else _Sum.apply(values)

    def mean(self, means: Tensor, counts: Tensor | float) -> Tensor:
        """The mean over all processes' things, of their means and of how many things each is the mean of.

        Args:
            means, counts: of one shape, or counts a number; where nothing was counted the mean is 0.
        """
        if self.alone:
            return means
        counts = torch.as_tensor(counts, dtype=means.dtype, device=means.device).expand_as(means)
        total, count = self.sum(torch.stack([means * counts, counts]))
        return total / count.clamp_min(1.0)

    def shared_loss(self, loss: Tensor) -> Tensor:
        """What each process goes back from, where all have the same loss."""
        return loss if self.alone else loss / self.size

    def add_gradients(self, net: nn.Module) -> None:
        """Every parameter's gradient becomes the sum over the processes, in one message."""
        if self.alone:
            return
        gradients = [parameter.grad for parameter in net.parameters() if parameter.grad is not None]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        distributed.all_reduce(flat)
        for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(part.view_as(gradient))

    def from_first(self, value: Any) -> Any:
        """The first process' value, in all of them; anything that can be pickled."""
        if self.alone:
            return value
        box: list[Any] = [value]
        distributed.broadcast_object_list(box)
        return box[0]

    def tensors_from_first(self, tensors: Sequence[Tensor]) -> None:
        """Overwrites the tensors with the first process'."""
        if not self.alone:
            for tensor in tensors:
                distributed.broadcast(tensor, 0)


class _Sum(torch.autograd.Function):
    """All-reduce forward and backward: the gradient of a sum that everyone has is the sum of everyone's gradient."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        total = values.clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(total)
        return total


ALONE = Group()
