"""The published demo code's network and objective, `objective="reference"`.

Shapes: R restarts, N clips, D embedding, K clusters, M = 3 modalities.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn

from tib.losses import (
    EPS,
    joint_distribution,
    mutual_information,
    sampled_superfluous_information,
    summed_joint_distribution,
)
from tib.reference.layers import BatchedLinear, GaussianEncoder

INIT_STD = 0.02


class ReferenceNet(nn.Module):
    """Two encoders and two heads; three terms.

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
        same = torch.eye(n_clusters, dtype=dtype).repeat(restarts, len(self.VIEW_NAMES), 1, 1)
        self.register_buffer("to_text", same)  # (R, M, K, K), see align_modalities

    @property
    def description(self) -> dict[str, Any]:
        """What `from_description` makes a net of the same shapes from; JSON."""
        restarts, n_clusters, dim = self.head_a.weight.shape
        return {"dim": dim, "n_clusters": n_clusters, "restarts": restarts}

    @classmethod
    def from_description(cls, description: Mapping[str, Any], dtype: torch.dtype) -> Self:
        """A net of these shapes, its weights to be loaded."""
        dims = dict.fromkeys(cls.VIEW_NAMES, int(description["dim"]))
        return cls(dims, int(description["n_clusters"]), int(description["restarts"]), dtype)

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
        self, views: Mapping[str, Tensor], generators: Sequence[torch.Generator], *, superfluous: bool
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
        # One restart is the published run to the number, rounding included; several share matrix products.
        joint_of = summed_joint_distribution if len(p_text_a) == 1 else joint_distribution
        text_visual = mutual_information(p_text_a, p_visual_a, joint_of)
        text_audio = mutual_information(p_text_b, p_audio_b, joint_of)
        return {
            "consistency": -text_visual - text_audio,
            "superfluous": term,
            "complementarity": -mutual_information(p_text_a, p_text_b, joint_of),
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
    def posterior(self, views: Mapping[str, Tensor]) -> Tensor:
        """p(cluster | clip) as head A says of the text: (R, N, K)."""
        return _posterior(self.head_a, self.encoder_a(self._spread(views["text"])))

    def posteriors(self, views: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Of a single restart: (N, K) by the text; name -> (N, K) by each modality, in the clusters of the text."""
        alone = self.modality_posteriors(views)
        return self.posterior(views)[0], {name: posterior[0] for name, posterior in alone.items()}

    @torch.no_grad()
    def modality_posteriors(self, views: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Each modality's own p(cluster | clip), in the clusters of the text: name -> (R, N, K)."""
        own = self._own_posteriors(views)
        return {name: own[name] @ self.to_text[:, m] for m, name in enumerate(self.VIEW_NAMES)}

    @torch.no_grad()
    def align_modalities(self, views: Mapping[str, Tensor]) -> None:
        """Learn p(text's cluster | modality's cluster) from the clips, for `modality_posteriors`.

        Mutual information is blind to the numbering: visual's cluster 3 may well be text's cluster 5. The rows of
        each modality's joint with the text, scaled to sum to 1, translate.
        """
        own = self._own_posteriors(views)
        for m, name in enumerate(self.VIEW_NAMES):
            if name != "text":
                joint = (own[name].transpose(1, 2) @ own["text"]).clamp_min(EPS)  # (R, K, K)
                self.to_text[:, m] = joint / joint.sum(-1, keepdim=True)

    def _own_posteriors(self, views: Mapping[str, Tensor]) -> dict[str, Tensor]:
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
        _, n_clusters, dim = self.head_a.weight.shape
        net = type(self)(dict.fromkeys(self.VIEW_NAMES, dim), n_clusters, 1, self.head_a.weight.dtype)
        net.to(self.head_a.weight.device)
        net.load_state_dict({name: value[restart : restart + 1] for name, value in self.state_dict().items()})
        return net


def _posterior(head: BatchedLinear, hidden: Tensor) -> Tensor:
    return torch.softmax(head(hidden), dim=-1)
