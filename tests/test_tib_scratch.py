"""Arrays in mapped files: the same as in memory, and where there is no room for them that is said before anything."""

import mmap
import tempfile

import numpy as np
import pytest
from estimator_factory import VIEWS, WHOLE

from tib import TIB, scratch

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def mapped(monkeypatch):
    monkeypatch.setattr(scratch, "IN_MEMORY", 8)


def test_what_is_much_lies_in_a_file_and_stays_when_it_is_let_go_of(mapped):
    assert scratch.empty((2,), np.float32).base is None
    array = scratch.empty((3, 2), np.float32)
    assert isinstance(array.base, mmap.mmap)
    array[:] = [[1, 2], [3, 4], [5, 6]]
    scratch.let_go(array)
    assert array.tolist() == [[1, 2], [3, 4], [5, 6]]
    scratch.let_go(np.ones(3))  # nothing to do


def test_a_fit_and_what_is_saved_of_it_are_the_same_from_mapped_files(tmp_path, mapped):
    model = TIB(3, **WHOLE | {"epochs": 2, "restarts": 2}).fit(VIEWS)
    assert isinstance(model.proba_.base, mmap.mmap)
    scratch.IN_MEMORY = 2**26
    plain = TIB(3, **WHOLE | {"epochs": 2, "restarts": 2}).fit(VIEWS)
    model.save(tmp_path)
    for other in (plain, TIB.load(tmp_path)):
        for name in ("labels_", "proba_", "confidence_", "agreement_", "restart_labels_"):
            np.testing.assert_array_equal(getattr(model, name), getattr(other, name))
        for name, values in model.modality_proba_.items():
            np.testing.assert_array_equal(values, other.modality_proba_[name])


def test_no_room_is_told(mapped, monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    with pytest.raises(OSError, match=r"no room for 4\.0 GB in .*nowhere .*free some space, or set TMPDIR"):
        scratch.empty((1_000_000_000,), np.float32)


def test_a_saved_model_is_readable_by_whom_the_folder_says(tmp_path):
    TIB(3, **WHOLE | {"epochs": 1, "restarts": 1}).fit(VIEWS).save(tmp_path)
    modes = {path.name: path.stat().st_mode for path in tmp_path.iterdir()}
    assert modes.keys() == {"model.json", "model.safetensors"}
    assert len(set(modes.values())) == 1


def test_a_model_that_cannot_be_written_leaves_the_old_one(tmp_path, monkeypatch):
    model = TIB(3, **WHOLE | {"epochs": 1, "restarts": 1}).fit(VIEWS)
    model.save(tmp_path)
    before = (tmp_path / "model.safetensors").read_bytes()

    def full(tensors, path):
        from safetensors import SafetensorError

        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("tib.persistence.save_file", full)
    with pytest.raises(OSError, match=r"cannot write .*model\.safetensors: .*No space left.*free some space"):
        model.save(tmp_path)
    assert (tmp_path / "model.safetensors").read_bytes() == before
    assert {path.name for path in tmp_path.iterdir()} == {"model.json", "model.safetensors"}
