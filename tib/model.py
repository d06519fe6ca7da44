"""The networks. Every parameter has a leading R axis, so that R restarts train side by side in one graph.

Shapes: R restarts, N clips, D embedding, K clusters. A layer maps (R, N, D_in) to (R, N, D_out) and never mixes two
restarts. There is no training mode: what updates running statistics is a call of its own, so that predicting in the
middle of training changes nothing.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own name for it

from tib.losses import EPS, mutual_information, sampled_superfluous_information

INIT_STD = 0.02
BATCH_NORM_MOMENTUM = 0.1
SIGMA_FLOOR = 1e-7

Tensors = Mapping[str, Tensor]


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
        moments = Moments(torch.empty_like(self.running_mean), torch.empty_like(self.running_var))
        moments.mean.zero_(), moments.var.zero_()
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


class ReferenceNet(nn.Module):
    """The network and objective of the published demo code (`objective="reference"`).

    Encoder A and head A see text and visual, encoder B and head B see text and audio. A clip's cluster is what head A
    says of its text. Weights are `initialise`d after construction.

    Args:
        dims: view name -> D, as `check_dims` wants them.
        n_clusters: K.
        restarts: R.
        dtype: of the parameters.
    """

    VIEW_NAMES = ("text", "visual", "audio")
    to_text: Tensor

    def __init__(self, dims: Mapping[str, int], n_clusters: int, restarts: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.check_dims(dims)
        dim = dims["text"]
        self.encoder_a = GaussianEncoder(restarts, dim, dtype)
        self.encoder_b = GaussianEncoder(restarts, dim, dtype)
        self.head_a = BatchedLinear(restarts, dim, n_clusters, dtype)
        self.head_b = BatchedLinear(restarts, dim, n_clusters, dtype)
        same = torch.eye(n_clusters, dtype=dtype).repeat(len(self.VIEW_NAMES), restarts, 1, 1)
        self.register_buffer("to_text", same)  # (M, R, K, K), see align_modalities

    @classmethod
    def check_dims(cls, dims: Mapping[str, int]) -> None:
        """Refuse views that the published network has no place for.

        Raises:
            ValueError: other names than text, visual and audio, or unequal dims.
        """
        if set(dims) != set(cls.VIEW_NAMES):
            raise ValueError(
                f"objective='reference' takes the views {', '.join(cls.VIEW_NAMES)}, got {', '.join(dims)}; "
                "rename the views, or leave out those beyond these three"
            )
        if len(set(dims.values())) > 1:
            sizes = ", ".join(f"{name} {dim}" for name, dim in dims.items())
            raise ValueError(
                f"objective='reference' needs views of one dimension, got {sizes}; reduce them to the same "
                "number first (PCA to 60 in the published demo)"
            )

    @torch.no_grad()
    def initialise(self, generators: Sequence[torch.Generator]) -> None:
        """Draw restart r's weights from generators[r] (CPU), as the published code draws them.

        Its constructor first gives every linear layer torch's default weights, then redraws each weight from
        N(0, 0.02²), biases 0. It also owns a third encoder that is never used. Both only advance the random stream.
        """
        dim = self.head_a.weight.shape[2]
        unused = [BatchedLinear(1, dim, dim, self.head_a.weight.dtype) for _ in range(2)]
        unused.append(BatchedLinear(1, dim, 2 * dim, self.head_a.weight.dtype))
        used: list[BatchedLinear] = [self.head_a, self.head_b]
        for encoder in (self.encoder_a, self.encoder_b):
            used += [encoder.linear_1, encoder.linear_2, encoder.gaussian]
        for restart, generator in enumerate(generators):
            rows = [(layer, 0) for layer in unused] + [(layer, restart) for layer in used]
            for layer, row in rows:
                layer.weight[row].uniform_(generator=generator)
                layer.bias[row].uniform_(generator=generator)
            for layer, row in rows:
                layer.weight[row].normal_(0.0, INIT_STD, generator=generator)
                layer.bias[row].zero_()

    def loss_terms(
        self, views: Tensors, generators: Sequence[torch.Generator], *, superfluous: bool
    ) -> dict[str, Tensor]:
        """The terms to be minimised, on a full batch; updates the running statistics.

        Args:
            views: name -> (N, D).
            generators: one a restart, on the views' device; not drawn from without `superfluous`.
            superfluous: whether that term is computed; 0 where not.
        Returns:
            consistency, superfluous, complementarity: each (R,), nats.
        """
        text = self._spread(views["text"])
        text_a, moments_text_a = self.encoder_a.by_batch(text)
        visual_a, moments_visual_a = self.encoder_a.by_batch(self._spread(views["visual"]))
        text_b, moments_text_b = self.encoder_b.by_batch(text)
        audio_b, moments_audio_b = self.encoder_b.by_batch(self._spread(views["audio"]))
        p_text_a, p_visual_a = _posterior(self.head_a, text_a), _posterior(self.head_a, visual_a)
        p_text_b, p_audio_b = _posterior(self.head_b, text_b), _posterior(self.head_b, audio_b)

        passes_a, passes_b = [moments_text_a, moments_visual_a], [moments_text_b, moments_audio_b]
        term = torch.zeros_like(p_text_a[:, 0, 0])
        if superfluous:
            # The published step runs encoder A on text and B on audio a second time. The activations are the same
            # and are reused; its second update of the running statistics is not, and is repeated here.
            passes_a.append(moments_text_a)
            passes_b.append(moments_audio_b)
            term = self._superfluous(text_a, generators)
        for moments in passes_a:
            self.encoder_a.track(moments)
        for moments in passes_b:
            self.encoder_b.track(moments)
        return {
            "consistency": -mutual_information(p_text_a, p_visual_a) - mutual_information(p_text_b, p_audio_b),
            "superfluous": term,
            "complementarity": -mutual_information(p_text_a, p_text_b),
        }

    def _superfluous(self, text_a: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        mu, sigma = self.encoder_a.distribution(text_a)
        # Three draws a restart: text's sample, audio's (the published code takes it and does not use it), the prior.
        noise = torch.empty(3, *mu.shape, dtype=mu.dtype, device=mu.device)
        for restart, generator in enumerate(generators):
            for draw in noise[:, restart]:
                draw.normal_(generator=generator)
        return sampled_superfluous_information(mu + noise[0] * sigma, noise[2])

    @torch.no_grad()
    def posterior(self, views: Tensors) -> Tensor:
        """p(cluster | clip) as head A says of the text: (R, N, K)."""
        return _posterior(self.head_a, self.encoder_a(self._spread(views["text"])))

    @torch.no_grad()
    def modality_posteriors(self, views: Tensors) -> dict[str, Tensor]:
        """Each modality's own p(cluster | clip), in the clusters of the text: name -> (R, N, K)."""
        return {
            name: p @ matrix
            for (name, p), matrix in zip(self._own_posteriors(views).items(), self.to_text, strict=True)
        }

    @torch.no_grad()
    def align_modalities(self, views: Tensors) -> None:
        """Learn p(text's cluster | modality's cluster) from the clips, for `modality_posteriors`.

        Mutual information is blind to the numbering: visual's cluster 3 may well be text's cluster 5. The rows of
        each modality's joint with the text, scaled to sum to 1, translate.
        """
        own = self._own_posteriors(views)
        for matrix, (name, p) in zip(self.to_text, own.items(), strict=True):
            if name != "text":
                joint = (p.transpose(1, 2) @ own["text"]).clamp_min(EPS)
                matrix.copy_(joint / joint.sum(-1, keepdim=True))

    def _own_posteriors(self, views: Tensors) -> dict[str, Tensor]:
        visual, audio = self._spread(views["visual"]), self._spread(views["audio"])
        return {
            "text": self.posterior(views),
            "visual": _posterior(self.head_a, self.encoder_a(visual)),
            "audio": _posterior(self.head_b, self.encoder_b(audio)),
        }

    def _spread(self, view: Tensor) -> Tensor:
        """(N, D) to (R, N, D), the same clips for every restart, without a copy."""
        return view.expand(len(self.head_a.weight), *view.shape)

    def single(self, restart: int) -> Self:
        """Restart `restart` alone: a net with R = 1 and a copy of its parameters and statistics."""
        restarts, n_clusters, dim = self.head_a.weight.shape
        net = type(self)(dict.fromkeys(self.VIEW_NAMES, dim), n_clusters, 1, self.head_a.weight.dtype)
        net.to(self.head_a.weight.device)
        axis = {name: 1 if name == "to_text" else 0 for name in self.state_dict()}
        net.load_state_dict(
            {name: value.narrow(axis[name], restart, 1) for name, value in self.state_dict().items()}
        )
        return net


def _posterior(head: BatchedLinear, hidden: Tensor) -> Tensor:
    return torch.softmax(head(hidden), dim=-1)
