"""Matchmaps, losses and retrieval against their definitions, written as the double loops of the paper."""

import math

import pytest
import torch

from extractors.pretraining.losses import masked_margin_softmax, sampled_margin_ranking
from extractors.pretraining.matchmap import SIMILARITIES, similarity_matrix
from extractors.pretraining.retrieval import retrieval


def one_similarity(image: torch.Tensor, audio: torch.Tensor, kind: str) -> torch.Tensor:
    """image (D, H, W), audio (D, T) of real steps alone."""
    matchmap = torch.einsum("dhw,dt->hwt", image, audio)
    if kind == "SISA":
        return matchmap.mean()
    if kind == "MISA":
        return matchmap.amax((0, 1)).mean()
    return matchmap.amax(2).mean()


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(3)
    images = torch.randn(5, 8, 3, 4, generator=generator)
    audios = torch.randn(6, 8, 7, generator=generator)
    return images, audios, torch.tensor([7, 1, 4, 2, 7, 3])


@pytest.mark.parametrize("kind", SIMILARITIES)
@pytest.mark.parametrize("max_values", [1, 600, 2**26])
def test_all_matchmaps_at_once_are_the_double_loop(batch, kind, max_values):
    images, audios, n_steps = batch
    expected = torch.stack(
        [torch.stack([one_similarity(i, a[:, :n], kind) for a, n in zip(audios, n_steps, strict=True)]) for i in images]
    )
    found = similarity_matrix(images, audios, n_steps, kind, max_values=max_values)
    assert found.shape == (5, 6)
    assert torch.allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("kind", SIMILARITIES)
def test_gradients_are_those_of_the_double_loop(batch, kind):
    images, audios, n_steps = (batch[0].double(), batch[1].double(), batch[2])
    weights = torch.randn(5, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    gradients = []
    for chunked in (True, False):
        i, a = images.clone().requires_grad_(), audios.clone().requires_grad_()
        if chunked:
            found = similarity_matrix(i, a, n_steps, kind, max_values=1)
        else:
            found = torch.stack(
                [torch.stack([one_similarity(x, y[:, :n], kind) for y, n in zip(a, n_steps, strict=True)]) for x in i]
            )
        (found * weights).sum().backward()
        gradients.append((i.grad, a.grad))
    for one, other in zip(*gradients, strict=True):
        assert torch.allclose(one, other, atol=1e-12)


@pytest.mark.parametrize("kind", SIMILARITIES)
def test_what_stands_in_the_padding_changes_nothing(batch, kind):
    images, audios, n_steps = batch
    spoilt = audios.clone()
    for sound, n in zip(spoilt, n_steps, strict=True):
        sound[:, n:] = 1e6
    assert torch.allclose(
        similarity_matrix(images, audios, n_steps, kind), similarity_matrix(images, spoilt, n_steps, kind), atol=1e-5
    )


def test_what_does_not_fit_is_said(batch):
    images, audios, n_steps = batch
    with pytest.raises(ValueError, match="unknown similarity 'MAX'; known: SISA, MISA, SIMA"):
        similarity_matrix(images, audios, n_steps, "MAX")
    with pytest.raises(ValueError, match="of one D, got"):
        similarity_matrix(images, audios[:, :4], n_steps, "MISA")
    with pytest.raises(ValueError, match=r"whole numbers in 1\.\.7"):
        similarity_matrix(images, audios, n_steps - 1, "MISA")


NEGATIVES = torch.tensor(
    [[0, 1, 0, 1], [1, 0, 1, 1], [0, 1, 0, 1], [1, 1, 1, 0]], dtype=torch.bool
)  # 0 and 2 are of one video
SIMILAR = torch.tensor([[2.0, 0.5, 9.0, 1.5], [1.0, 0.0, 0.3, -1.0], [9.0, 0.1, 1.0, 0.2], [0.4, 2.5, 0.0, 3.0]])


def test_margin_ranking_is_the_mean_hinge_over_what_is_drawn():
    """Averaged over many draws it is the expectation, worked out pair by pair from the definition."""
    n = len(SIMILAR)
    expected = 0.0
    for i in range(n):
        others = [j for j in range(n) if NEGATIVES[i, j]]
        pictures = [max(0.0, 1 + float(SIMILAR[j, i] - SIMILAR[i, i])) for j in others]
        sounds = [max(0.0, 1 + float(SIMILAR[i, j] - SIMILAR[i, i])) for j in others]
        expected += (sum(pictures) + sum(sounds)) / len(others) / n
    generator = torch.Generator().manual_seed(0)
    drawn = [sampled_margin_ranking(SIMILAR, NEGATIVES, margin=1.0, generator=generator).item() for _ in range(4000)]
    assert sum(drawn) / len(drawn) == pytest.approx(expected, abs=0.02)


def test_margin_ranking_with_one_negative_each_is_the_double_loop():
    similarities = SIMILAR[:2, :2]
    expected = sum(
        max(0.0, 0.7 + float(similarities[j, i] - similarities[i, i]))
        + max(0.0, 0.7 + float(similarities[i, j] - similarities[i, i]))
        for i, j in ((0, 1), (1, 0))
    )
    found = sampled_margin_ranking(
        similarities, ~torch.eye(2, dtype=torch.bool), margin=0.7, generator=torch.Generator().manual_seed(0)
    )
    assert found.item() == pytest.approx(expected / 2, abs=1e-6)


@pytest.mark.parametrize(("margin", "temperature"), [(0.0, 1.0), (0.5, 1.0), (0.2, 0.3)])
def test_masked_margin_softmax_is_the_double_loop(margin, temperature):
    n = len(SIMILAR)
    expected = 0.0
    for i in range(n):
        own = math.exp((float(SIMILAR[i, i]) - margin) / temperature)
        for direction in (SIMILAR, SIMILAR.T):
            others = sum(math.exp(float(direction[i, j]) / temperature) for j in range(n) if NEGATIVES[i, j])
            expected -= math.log(own / (own + others)) / n
    found = masked_margin_softmax(SIMILAR, NEGATIVES, margin=margin, temperature=temperature)
    assert found.item() == pytest.approx(expected, rel=1e-5)


def test_without_any_negative_there_is_nothing_to_learn():
    none = torch.zeros(3, 3, dtype=torch.bool)
    similarities = torch.randn(3, 3, requires_grad=True)
    ranking = sampled_margin_ranking(similarities, none, margin=1.0, generator=torch.Generator())
    softmax = masked_margin_softmax(similarities, none, margin=0.0, temperature=1.0)
    (ranking + softmax).backward()
    assert ranking.item() == 0.0
    assert softmax.item() == pytest.approx(0.0, abs=1e-6)
    assert torch.equal(similarities.grad, torch.zeros(3, 3))


def test_losses_refuse_what_does_not_fit():
    with pytest.raises(ValueError, match=r"expected similarities \(B, B\) and negatives \(B, B\) bool"):
        masked_margin_softmax(SIMILAR, NEGATIVES[:3], margin=0.0, temperature=1.0)
    with pytest.raises(ValueError, match="among its own negatives"):
        masked_margin_softmax(SIMILAR, torch.ones(4, 4, dtype=torch.bool), margin=0.0, temperature=1.0)
    with pytest.raises(ValueError, match="temperature above 0, got 0"):
        masked_margin_softmax(SIMILAR, NEGATIVES, margin=0.0, temperature=0.0)


def test_retrieval_by_hand():
    similarities = torch.tensor([[3.0, 1.0, 0.0], [2.0, 1.5, 5.0], [4.0, 0.0, 1.0]])
    # Pictures' sounds rank 1, 3, 2; sounds' pictures rank 2 (behind 4), 1, 2 (behind 5).
    found = retrieval(similarities)
    assert found.image_to_audio == {1: pytest.approx(1 / 3), 5: 1.0, 10: 1.0}
    assert found.audio_to_image == {1: pytest.approx(1 / 3), 5: 1.0, 10: 1.0}
    assert found.median_rank == 2.0
    assert found.chance(1) == pytest.approx(1 / 3)
    assert found.chance(5) == 1.0
    assert found.mean_recall == pytest.approx((2 / 3 + 4) / 6)


def test_what_tells_nothing_apart_scores_chance():
    found = retrieval(torch.zeros(20, 20))
    for k in (1, 5, 10):
        assert found.image_to_audio[k] == pytest.approx(found.chance(k))
        assert found.audio_to_image[k] == pytest.approx(k / 20)
    assert found.median_rank == 10.5


def test_retrieval_refuses_what_is_no_square_of_numbers():
    for wrong in (torch.zeros(2, 3), torch.zeros(0, 0), torch.full((2, 2), torch.nan)):
        with pytest.raises(ValueError, match=r"expected finite similarities \(N, N\)"):
            retrieval(wrong)
