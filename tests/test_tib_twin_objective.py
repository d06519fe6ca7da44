"""The terms of a batch against loops, hand-computed values and their bounds, with and without missing modalities."""

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F
from twin_factory import DOUBLE, TERMS, WEIGHTS, randn, slow_fused, softmaxed

from tib.twin.net import Encoded
from tib.twin.objective import Weights, fuse, loss_terms, pairs_present, partition_term

NO_TERMS = Weights(0.0, 0.0, 0.0, 0.0, 0.0, neighbour_share=0.3, balance=1.0)


def encoded_of(seed: int, restarts: int = 2, pairs: int = 3, n_clusters: int = 3, half: int = 4) -> Encoded:
    shape = (restarts, pairs, 2, 2, 2 * half)
    logits = 2 * randn(seed, restarts, pairs, n_clusters, 2, 2 * half)
    return Encoded(logits, randn(seed + 1, *shape), (0.7 * randn(seed + 2, *shape)).exp())


def presence_of(seed: int, restarts: int = 2, half: int = 4) -> Tensor:
    """(R, P, 2, L) of three modalities; the first restart's second row has none."""
    has = torch.rand(restarts, 3, 2 * half, generator=torch.Generator().manual_seed(seed)) < 0.6
    has[:, 0] |= ~has.any(1)
    has[0, :, 1] = False
    return pairs_present(has.to(DOUBLE), [(0, 1), (0, 2), (1, 2)])


def entries(encoded: Encoded, restart: int, present: Tensor) -> Iterator[tuple[int, int, int]]:
    """(pair, modality, row) that count."""
    _, pairs, _, _, rows = encoded.logits.shape
    for p in range(pairs):
        for side in range(2):
            for row in range(rows):
                if present[restart, p, side, row]:
                    yield p, side, row


def divergence_of(p: list[float], q: list[float]) -> float:
    return sum(a * (math.log(a) - math.log(b)) for a, b in zip(p, q, strict=True))


def information_of(joint: np.ndarray, balance: float) -> float:
    """b H(C) + b H(C') - H(C, C') of soft counts, symmetrised."""
    joint = (joint + joint.T) / (2 * joint.sum())
    entropy = -sum(x * math.log(x) for x in joint.sum(axis=1))
    return 2 * balance * entropy + sum(x * math.log(x) for x in joint.ravel() if x > 0)


def gaussian_divergence(a: tuple[float, float], b: tuple[float, float]) -> float:
    return math.log(b[1] / a[1]) + (a[1] ** 2 + (a[0] - b[0]) ** 2) / (2 * b[1] ** 2) - 0.5


def slow_consistency(encoded: Encoded, restart: int, present: Tensor, weights: Weights) -> float:
    _, pairs, n_clusters, _, rows = encoded.logits.shape
    total = 0.0
    for p in range(pairs):
        joint = np.zeros((n_clusters, n_clusters))
        for row in range(rows):
            partner = (row + rows // 2) % rows
            for other, share in ((row, 1 - weights.neighbour_share), (partner, weights.neighbour_share)):
                if present[restart, p, 0, row] and present[restart, p, 1, other]:
                    a = softmaxed(encoded.logits[restart, p, :, 0, row])
                    b = softmaxed(encoded.logits[restart, p, :, 1, other])
                    joint += share * np.outer(a, b)
        total += information_of(joint, weights.balance)
    return total / pairs


def slow_fusion(encoded: Encoded, restart: int, present: Tensor, weights: Weights) -> float:
    n_clusters, half = encoded.logits.shape[2], encoded.logits.shape[4] // 2
    joint = np.zeros((n_clusters, n_clusters))
    for row in range(half):
        if not (present[restart, ..., row].any() and present[restart, ..., row + half].any()):
            continue
        a, b = (softmaxed(slow_fused(encoded.logits, restart, r, present)) for r in (row, row + half))
        joint += np.outer(a, b)
    return information_of(joint, weights.balance)


def mean_of_means(groups: Mapping[Any, list[float]], count: int) -> float:
    """Of every pair and modality the mean over its clips; one without clips adds 0."""
    return sum(sum(values) / len(values) for values in groups.values()) / count


def slow_terms(encoded: Encoded, restart: int, present: Tensor, weights: Weights) -> dict[str, float]:
    logits, mu, sigma = (x[restart] for x in encoded)
    superfluous, added, apart = (defaultdict[Any, list[float]](list) for _ in range(3))
    for p, side, row in entries(encoded, restart, present):
        has = [x for x in range(2) if present[restart, p, x, row]]
        together = softmaxed(logits[p][:, has, row].mean(1))
        gained = divergence_of(together, softmaxed(logits[p, :, side, row]))
        if len(has) == 2:
            added[p, side].append(min(math.log(len(together)), gained))
        if row >= logits.shape[-1] // 2:
            continue  # the codes of the anchors alone
        codes = [list(zip(mu[p, :, x, row].tolist(), sigma[p, :, x, row].tolist(), strict=True)) for x in range(2)]
        superfluous[p, side].append(sum(gaussian_divergence(one, (0.0, 1.0)) for one in codes[side]))
        if side == 0 and len(has) == 2:
            both_ways = (gaussian_divergence(a, b) + gaussian_divergence(b, a) for a, b in zip(*codes, strict=True))
            apart[p].append(sum(both_ways) / 2)
    pairs = len(logits)
    return {
        "consistency": -slow_consistency(encoded, restart, present, weights),
        "fusion": -slow_fusion(encoded, restart, present, weights),
        "superfluous": mean_of_means(superfluous, 2 * pairs),
        "divergence": mean_of_means(apart, pairs),
        "complementarity": -mean_of_means(added, 2 * pairs),
    }


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("missing", [False, True])
def test_the_terms_equal_the_loops(share: float, missing: bool) -> None:
    encoded, weights = encoded_of(0), replace(WEIGHTS, neighbour_share=share)
    present = presence_of(3) if missing else torch.ones(2, 3, 2, 8, dtype=DOUBLE)
    assert not missing or 0.3 < float(present.mean()) < 0.9
    terms = loss_terms(encoded, weights, present if missing else None)
    assert tuple(terms) == TERMS
    for restart in range(2):
        for name, expected in slow_terms(encoded, restart, present, weights).items():
            assert float(terms[name][restart]) == pytest.approx(expected, abs=1e-12), name


@pytest.mark.parametrize("missing", [False, True])
def test_the_partition_term_equals_the_loops(missing: bool) -> None:
    logits = encoded_of(0).logits
    present = presence_of(3) if missing else torch.ones(2, 3, 2, 8, dtype=DOUBLE)
    partition = torch.tensor([[0, 1, 2, -1, 0, 1, -1, 2], [2, 2, -1, 1, 1, 0, 0, -1]])
    for restart in range(2):
        alone, fused = [], []
        for p, side, row in entries(encoded_of(0), restart, present):
            if partition[restart, row] >= 0:
                alone.append(-math.log(softmaxed(logits[restart, p, :, side, row])[partition[restart, row]]))
        for row in range(8):
            if partition[restart, row] >= 0:
                posterior = softmaxed(slow_fused(logits, restart, row, present))
                fused.append(-math.log(posterior[partition[restart, row]]))
        value = partition_term(logits, partition, present if missing else None)[restart]
        assert float(value) == pytest.approx(sum(alone) / len(alone) + sum(fused) / len(fused), abs=1e-13)


def sure(*clusters: int, n_clusters: int = 2) -> Tensor:
    """Logits (K, L) of rows that are sure of their cluster."""
    return 80 * F.one_hot(torch.tensor(clusters), n_clusters).to(DOUBLE).T - 40


def only(name: str, logits: Tensor, present: Tensor | None = None, share: float = 0.0) -> float:
    weights = replace(NO_TERMS, **{name: 1.0}, neighbour_share=share)
    terms = loss_terms(Encoded(logits, logits, logits.exp()), weights, present)
    assert list(terms) == [name]
    return float(terms[name])


def test_consistency_by_hand() -> None:
    # one anchor of cluster 0, its neighbour of cluster 1, both modalities agree
    logits = torch.stack([sure(0, 1), sure(0, 1)], 1)[None, None]
    assert only("consistency", logits) == pytest.approx(-math.log(2), abs=1e-12)
    assert only("consistency", logits, share=1.0) == pytest.approx(-math.log(2), abs=1e-12)  # sure of the other one
    assert only("consistency", logits, share=0.5) == pytest.approx(0, abs=1e-12)  # either is as likely
    # the second row lacks a modality: one pair of clusters is all that is seen
    present = torch.tensor([[1.0, 1.0], [1.0, 0.0]], dtype=DOUBLE)[None, None]
    assert only("consistency", logits, present) == pytest.approx(0, abs=1e-12)


def test_fusion_by_hand() -> None:
    logits = torch.stack([sure(0, 1, 0, 1), sure(0, 1, 0, 1)], 1)[None, None]
    assert only("fusion", logits) == pytest.approx(-math.log(2), abs=1e-12)
    # both neighbours in cluster 0: joint [[1, 0], [1, 0]] / 2, symmetrised [[2, 1], [1, 0]] / 4
    logits = torch.stack([sure(0, 1, 0, 0), sure(0, 1, 0, 0)], 1)[None, None]
    by_hand = 0.5 * math.log(8 / 9) + 0.5 * math.log(4 / 3)
    assert only("fusion", logits) == pytest.approx(-by_hand, abs=1e-12)
    # a modality that is missing has no say, however loud
    logits[0, 0, :, 1] = 9 * logits[0, 0, :, 1].flip(0)
    present = torch.tensor([[1.0] * 4, [0.0] * 4], dtype=DOUBLE)[None, None]
    assert only("fusion", logits, present) == pytest.approx(-by_hand, abs=1e-12)


def test_complementarity_by_hand() -> None:
    # a says 3:1, b says nothing; together sqrt(3):1
    logits = torch.tensor([[math.log(3), 0.0], [0.0, 0.0]], dtype=DOUBLE)[None, None, :, :, None].expand(
        -1, -1, -1, -1, 2
    )
    together, a, b = [math.sqrt(3) / (math.sqrt(3) + 1), 1 / (math.sqrt(3) + 1)], [0.75, 0.25], [0.5, 0.5]
    by_hand = (divergence_of(together, a) + divergence_of(together, b)) / 2
    assert only("complementarity", logits) == pytest.approx(-by_hand, abs=1e-14)
    alone = torch.tensor([[1.0, 1.0], [0.0, 0.0]], dtype=DOUBLE)[None, None]
    assert only("complementarity", logits, alone) == pytest.approx(0, abs=1e-14)  # nothing is added to nothing


def test_the_partition_term_by_hand() -> None:
    unsure = torch.zeros(1, 1, 4, 2, 2, dtype=DOUBLE)
    expected = {(0, 3): 2 * math.log(4), (-1, 3): 2 * math.log(4), (-1, -1): 0.0}
    for partition, value in expected.items():
        assert float(partition_term(unsure, torch.tensor([partition]), None)) == pytest.approx(value, abs=1e-15)
    certain = torch.stack([sure(0, 1), sure(0, 1)], 1)[None, None]
    assert float(partition_term(certain, torch.tensor([[0, 1]]), None)) == pytest.approx(0, abs=1e-15)
    assert float(partition_term(certain, torch.tensor([[1, 1]]), None)) == pytest.approx(
        80, abs=1e-12
    )  # half of 80, twice


def test_fused_logits_by_hand() -> None:
    logits = torch.tensor([[1.0, 3.0], [5.0, 8.0]], dtype=DOUBLE)[None, None, None].expand(1, 1, 2, 2, 2)
    assert fuse(logits, None)[0, 0].tolist() == [3.0, 5.5]
    present = torch.tensor([[1.0, 0.0], [0.0, 0.0]], dtype=DOUBLE)[None, None]
    assert fuse(logits, present)[0, 0].tolist() == [1.0, 0.0]


def test_presence_by_pair() -> None:
    has = torch.tensor([[[1.0, 0.0], [1.0, 1.0], [0.0, 1.0]]])
    expected = [[[1, 0], [1, 1]], [[1, 0], [0, 1]], [[1, 1], [0, 1]]]
    assert pairs_present(has, [(0, 1), (0, 2), (1, 2)])[0].tolist() == expected


@settings(max_examples=30, deadline=None)
@given(
    st.integers(0, 10_000),
    st.integers(2, 6),
    st.sampled_from([0.1, 5.0, 300.0]),
    st.sampled_from([0.0, 0.5, 1.0]),
    st.booleans(),
)
def test_the_terms_keep_their_bounds(seed: int, n_clusters: int, sharpness: float, share: float, missing: bool) -> None:
    encoded = encoded_of(seed, n_clusters=n_clusters)
    encoded = encoded._replace(logits=sharpness * encoded.logits)
    present = presence_of(seed) if missing else None
    terms = loss_terms(encoded, replace(WEIGHTS, neighbour_share=share, balance=1.0), present)
    for name in ("consistency", "fusion", "complementarity"):
        assert (terms[name] <= 1e-12).all(), name
        assert (terms[name] >= -math.log(n_clusters) - 1e-12).all(), name
    for name in ("superfluous", "divergence"):
        assert (terms[name] >= 0).all(), name
    partition = torch.randint(-1, n_clusters, (2, 8), generator=torch.Generator().manual_seed(seed))
    assert (partition_term(encoded.logits, partition, present) >= 0).all()


def test_what_a_missing_row_holds_changes_neither_terms_nor_gradients() -> None:
    present, partition = presence_of(3), torch.tensor([[0, 1, 2, -1, 0, 1, 2, 2]] * 2)
    gone = (present == 0).unsqueeze(2)
    one = Encoded(*(x.requires_grad_() for x in encoded_of(0)))
    other = Encoded(*(torch.where(gone, y, x.detach()) for x, y in zip(one, encoded_of(50), strict=True)))
    terms = loss_terms(one, WEIGHTS, present) | {"partition": partition_term(one.logits, partition, present)}
    same = loss_terms(other, WEIGHTS, present) | {"partition": partition_term(other.logits, partition, present)}
    for name, value in terms.items():
        assert torch.equal(value, same[name]), name
    torch.stack(list(terms.values())).sum().backward()
    for values in one:
        assert values.grad is not None
        assert values.grad.masked_select(gone.expand_as(values)).abs().max() == 0
        assert values.grad.abs().max() > 0
    assert one.logits.grad is not None
    assert one.logits.grad.masked_select(~gone.expand_as(one.logits)).abs().min() > 0


def test_a_pair_that_no_row_has_both_of_says_nothing() -> None:
    logits = encoded_of(0, restarts=1, pairs=1).logits.requires_grad_()
    present = torch.tensor([[1.0] * 4 + [0.0] * 4, [0.0] * 4 + [1.0] * 4], dtype=DOUBLE)[None, None]
    term = loss_terms(Encoded(logits, logits, logits), replace(NO_TERMS, consistency=1.0), present)["consistency"]
    across = loss_terms(
        Encoded(logits, logits, logits), replace(NO_TERMS, consistency=1.0, neighbour_share=0.0), present
    )
    across["consistency"].backward()
    assert float(across["consistency"].detach()) == pytest.approx(0, abs=1e-12)
    assert logits.grad is not None
    assert logits.grad.abs().max() == 0
    assert float(term.detach()) < -1e-3  # an anchor's a beside its neighbour's b still counts


@pytest.mark.parametrize("missing", [False, True])
def test_gradients_of_the_terms_equal_finite_differences(missing: bool) -> None:
    encoded = encoded_of(0, restarts=1, half=2)
    present = presence_of(1, restarts=1, half=2) if missing else None
    inputs = [encoded.logits / 4, encoded.mu, encoded.sigma]  # flatter: nothing is cut at log K
    partition = torch.tensor([[0, -1, 2, 1]])

    def terms(*values: Tensor) -> tuple[Tensor, ...]:
        of_batch = loss_terms(Encoded(*values), WEIGHTS, present)
        return (*of_batch.values(), partition_term(values[0], partition, present))

    assert torch.autograd.gradcheck(terms, [x.requires_grad_() for x in inputs])


def test_certain_posteriors_have_finite_gradients() -> None:
    logits = (300 * randn(0, 2, 3, 4, 2, 8)).requires_grad_()
    for present in (None, presence_of(0)):
        terms = loss_terms(Encoded(logits, logits, logits.detach().abs() + 1e-4), WEIGHTS, present)
        (gradient,) = torch.autograd.grad(torch.stack(list(terms.values())).sum(), logits)
        assert gradient.isfinite().all()


@pytest.mark.parametrize("name", TERMS)
def test_a_weight_of_zero_leaves_its_term_out(name: str) -> None:
    terms = loss_terms(encoded_of(0), replace(WEIGHTS, **{name: 0.0}), None)
    assert tuple(terms) == tuple(term for term in TERMS if term != name)
