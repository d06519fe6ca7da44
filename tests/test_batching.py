"""Batches: cut across clips, halved where the device is full, side by side, and what fails in one."""

import numpy as np
import pytest
import torch
from torch import nn

from extractors.base import Embedding, Prepared
from extractors.batching import Encoded, NetworkExtractor, resolve_device
from extractors.errors import ExtractionError
from extractors.media import MediaNeeds


class Doubler(NetworkExtractor):
    """(2,) pieces, doubled; fails as a full device does when a batch is larger than `fits`."""

    name, dim, needs, weights_record = "visual/doubler", 2, MediaNeeds(), {}
    unit, default_batch = "pairs", {"cpu": 4}

    def __init__(self, fits: int = 99, **settings) -> None:
        super().__init__(nn.Identity(), **{"batch_size": 2, "device": "cpu", "precision": "fp32"} | settings)
        self.fits = fits
        self.batches = []

    def collate(self, pieces):
        return (torch.tensor(np.stack(pieces)),)

    def forward(self, pieces):
        self.batches.append(len(pieces))
        if len(pieces) > self.fits or (pieces[:, 0] == 666).any():
            raise torch.OutOfMemoryError("CUDA out of memory")
        doubled = self.network(2 * pieces)
        return Encoded(doubled, [torch.stack([row, row / 2]) for row in doubled])


def items(*clips):
    return [Prepared(f"c{i}", np.array(rows, dtype=np.float32), n_units=len(rows)) for i, rows in enumerate(clips)]


THREE = [[[1, 2], [3, 4], [5, 9]], [[7, 8]], [[0, 1], [2, 3]]]
DOUBLED_MEANS = [[6, 10], [14, 16], [2, 4]]  # by hand


@pytest.mark.parametrize(("batch_size", "batches"), [(1, [1] * 6), (2, [2, 2, 2]), (4, [4, 2]), (99, [6])])
def test_pieces_fill_batches_across_clips_and_come_back_in_order(batch_size, batches):
    doubler = Doubler(batch_size=batch_size)
    results = doubler.encode(items(*THREE))
    assert [r.vector.tolist() for r in results] == DOUBLED_MEANS
    assert [(r.clip_id, r.n_units) for r in results] == [("c0", 3), ("c1", 1), ("c2", 2)]
    assert sorted(doubler.batches, reverse=True) == batches  # side by side: in any order


def test_one_bad_clip_does_not_spoil_its_batch():
    results = Doubler(batch_size=6).encode(items(THREE[0], [[np.nan, 1]], [[np.inf, 1]], THREE[2]))
    assert [r.vector.tolist() for r in (results[0], results[3])] == [DOUBLED_MEANS[0], DOUBLED_MEANS[2]]
    for failed in results[1:3]:
        assert isinstance(failed, ExtractionError)
        assert (failed.stage, failed.cause) == ("encode", "not_finite")
        assert "NaN or Inf" in failed.message


def test_sequences_come_whole_and_in_order_however_the_batches_are_cut():
    expected = [
        [[2, 4], [1, 2], [6, 8], [3, 4], [10, 18], [5, 9]],
        [[14, 16], [7, 8]],
        [[0, 2], [0, 1], [4, 6], [2, 3]],
    ]
    for settings in ({"batch_size": 1}, {"batch_size": 2}, {"batch_size": 99}, {"batch_size": 6, "fits": 2}):
        results = Doubler(**settings).encode(items(*THREE), keep_sequence=True)
        assert [r.sequence.tolist() for r in results] == expected
        assert [r.vector.tolist() for r in results] == DOUBLED_MEANS


def test_a_step_that_is_not_finite_fails_its_clip_alone(monkeypatch):
    doubler = Doubler(batch_size=6)
    whole = doubler.forward

    def spoilt(pieces):
        encoded = whole(pieces)
        encoded.steps[0][1, 1] = torch.inf  # a token of the first clip, which "cls" pooling would not see
        return encoded

    monkeypatch.setattr(doubler, "forward", spoilt)
    first, *others = doubler.encode(items([[1, 2]], [[3, 4]], [[5, 6]]), keep_sequence=True)
    assert isinstance(first, ExtractionError)
    assert first.cause == "not_finite"
    assert all(isinstance(other, Embedding) for other in others)


def test_a_batch_too_large_for_the_device_is_halved():
    doubler = Doubler(fits=2, batch_size=6)
    assert [r.vector.tolist() for r in doubler.encode(items(*THREE))] == DOUBLED_MEANS
    assert doubler.batches == [6, 3, 1, 2, 3, 1, 2]


def test_after_a_batch_that_did_not_fit_smaller_ones_are_cut():
    doubler = Doubler(fits=2, batch_size=6)
    doubler.encode(items(*THREE))
    doubler.batches.clear()
    doubler.encode(items(*THREE))
    assert max(doubler.batches) <= 2


@pytest.mark.parametrize(
    "told",
    [
        "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
    ],
)
def test_running_out_of_memory_in_other_words_is_halved_too(told):
    class Full(Doubler):
        def forward(self, pieces):
            if len(pieces) > 1:
                raise RuntimeError(told)
            return super().forward(pieces)

    assert [r.vector.tolist() for r in Full(batch_size=6).encode(items(*THREE))] == DOUBLED_MEANS


def test_another_error_of_a_pass_is_not_taken_for_a_lack_of_memory():
    class Broken(Doubler):
        def forward(self, pieces):
            raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        Broken(batch_size=6).encode(items(*THREE))


@pytest.mark.parametrize("n_threads", [1, 2, 3])
def test_passes_side_by_side_give_the_same_in_order_and_leave_the_threads_as_they_were(n_threads):
    before = torch.get_num_threads()
    torch.set_num_threads(n_threads)
    told = []
    try:
        results = Doubler(batch_size=1).encode(items(*THREE * 5), on_clips=told.append)
        assert torch.get_num_threads() == n_threads
    finally:
        torch.set_num_threads(before)
    assert [r.vector.tolist() for r in results] == DOUBLED_MEANS * 5
    assert sum(told) == 15


def test_a_clip_too_large_for_the_device_fails_alone():
    results = Doubler(batch_size=6).encode(items([[666, 0]], *THREE[1:]))
    assert isinstance(results[0], ExtractionError)
    assert (results[0].cause, results[0].stage) == ("out_of_memory", "encode")
    assert [r.vector.tolist() for r in results[1:]] == DOUBLED_MEANS[1:]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 0}, "batch_size must be >= 1, got 0"),
        ({"precision": "int4"}, "unknown precision 'int4'; known: fp32, bf16, fp16"),
        ({"device": "tpu"}, "unknown device 'tpu'; known: auto, cpu, cuda"),
    ],
)
def test_settings_out_of_range(settings, message):
    with pytest.raises(ValueError, match=message):
        Doubler(**settings)


def test_devices_on_a_machine_without_cuda(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_device("auto") == resolve_device("cpu") == torch.device("cpu")
    with pytest.raises(ValueError, match="device 'cuda' was asked for and PyTorch sees no CUDA device"):
        resolve_device("cuda")
