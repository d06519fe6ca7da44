"""The published demo's training as a plain loop, written from its description: what speed is measured against.

One restart, each encoder run twice a step, an (N, K, K) tensor for each joint. Also the oracle of the tests of
`objective="reference"`.
"""

import sys

import torch
from torch import Tensor, nn


class PlainEncoder(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(dim, dim), nn.BatchNorm1d(dim), nn.ReLU(), nn.Linear(dim, dim), nn.BatchNorm1d(dim), nn.ReLU()
        )
        self.double_line = nn.Linear(dim, 2 * dim)

    def distribution(self, x: Tensor) -> torch.distributions.Normal:
        mu, sigma = self.double_line(self.net(x)).chunk(2, dim=1)
        return torch.distributions.Normal(mu, nn.functional.softplus(sigma) + 1e-7)


class PlainNet(PlainEncoder):
    """The published model by its description: an encoder that owns two more and two heads."""

    def __init__(self, dim: int, n_clusters: int) -> None:
        super().__init__(dim)
        self.cluster_A = nn.Sequential(nn.Linear(dim, n_clusters))
        self.cluster_B = nn.Sequential(nn.Linear(dim, n_clusters))
        self.encoder_A = PlainEncoder(dim)
        self.encoder_B = PlainEncoder(dim)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, 0, 0.02)
                nn.init.zeros_(module.bias)

    def a(self, x: Tensor) -> Tensor:
        return torch.softmax(self.cluster_A(self.encoder_A.net(x)), 1)

    def b(self, x: Tensor) -> Tensor:
        return torch.softmax(self.cluster_B(self.encoder_B.net(x)), 1)


def plain_mutual_information(p: Tensor, q: Tensor) -> Tensor:
    """In the demo's negative sign, with its (N, K, K) tensor."""
    joint = (p.unsqueeze(2) * q.unsqueeze(1)).sum(0)
    joint = (joint + joint.t()) / 2
    joint = joint / joint.sum()
    floor = torch.tensor(sys.float_info.epsilon, dtype=joint.dtype)
    rows, columns = joint.sum(1).view(-1, 1).expand_as(joint), joint.sum(0).view(1, -1).expand_as(joint)
    joint, rows, columns = (torch.where(part < floor, floor, part) for part in (joint, rows, columns))
    return (-joint * (joint.log() - columns.log() - rows.log())).sum()


def plain_step(
    net: PlainNet, optimiser: torch.optim.Optimizer, views: dict[str, Tensor], superfluous: bool
) -> dict[str, float]:
    text, visual, audio = views["text"], views["visual"], views["audio"]
    text_a, visual_a, text_b, audio_b = net.a(text), net.a(visual), net.b(text), net.b(audio)
    terms = {
        "consistency": plain_mutual_information(text_a, visual_a) + plain_mutual_information(text_b, audio_b),
        "superfluous": torch.zeros((), dtype=text.dtype),
        "complementarity": plain_mutual_information(text_a, text_b),
    }
    if superfluous:
        z_text, _ = net.encoder_A.distribution(text).rsample(), net.encoder_B.distribution(audio).rsample()
        prior = torch.distributions.Normal(torch.zeros_like(text), torch.ones_like(text)).sample()
        log_z, s = torch.log_softmax(z_text, 1), torch.softmax(prior, 1)
        terms["superfluous"] = nn.functional.kl_div(log_z, s, reduction="sum") / s.numel()
    optimiser.zero_grad()
    torch.stack(list(terms.values())).sum().backward()
    optimiser.step()
    return {name: term.item() for name, term in terms.items()}


def plain_run(
    views: dict[str, Tensor], n_clusters: int, seed: int, epochs: int, *, superfluous: bool
) -> tuple[PlainNet, list[dict[str, float]]]:
    before = torch.get_default_dtype()
    with torch.random.fork_rng(devices=[]):
        torch.set_default_dtype(views["text"].dtype)
        torch.manual_seed(seed)
        try:
            net = PlainNet(views["text"].shape[1], n_clusters)
            optimiser = torch.optim.Adam(net.parameters(), lr=0.05)
            return net, [plain_step(net, optimiser, views, superfluous) for _ in range(epochs)]
        finally:
            torch.set_default_dtype(before)
