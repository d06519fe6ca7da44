"""A fit that was killed goes on from its checkpoint, to the numbers of one that was not."""

import sys

import numpy as np
import pytest

import tib.checkpoint
from tib import TIB

pytestmark = pytest.mark.usefixtures("one_thread")


class Killed(Exception):
    pass


@pytest.fixture(autouse=True)
def after_every_step(monkeypatch):
    monkeypatch.setattr(tib.checkpoint, "EVERY_S", 0.0)


@pytest.fixture
def views():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, 60)
    views = {
        name: 2 * rng.normal(size=(3, 8))[truth] + rng.normal(size=(60, 8)) for name in ("text", "visual", "audio")
    }
    views["audio"][:5] = np.nan
    return views


def killed_after(step, model, views, path):
    """The stages it was in, one entry a step."""
    stages = []

    def on_step(report):
        stages.append((report.stage, report.step))
        if len(stages) == step:
            raise Killed

    with pytest.raises(Killed):
        model.fit(views, on_step=on_step, checkpoint=path)
    return stages


def assert_same(model, whole):
    for name in ("labels_", "proba_", "agreement_", "restart_labels_", "restart_losses_"):
        np.testing.assert_array_equal(getattr(model, name), getattr(whole, name), name)
    assert model.history_ == whole.history_
    assert (model.schedule_, model.stability_) == (whole.schedule_, whole.stability_)


@pytest.mark.parametrize(
    "settings",
    [
        {"restarts": 2, "epochs": 24},
        {"restarts": 1, "epochs": 24, "dtype": "float64"},
        {"restarts": 2, "epochs": 100, "early_stop": True},
    ],
)
def test_killed_twice_and_ended(views, tmp_path, settings):
    path, model = tmp_path / "run" / "checkpoint.pt", TIB(3, random_state=0, **settings)
    first = killed_after(11, model, views, path)
    second = killed_after(9, TIB(3, random_state=0, **settings), views, path)
    assert second[0][1] == first[-1][1]  # the step it was killed in is done again, the ones before are not
    assert_same(
        TIB(3, random_state=0, **settings).fit(views, checkpoint=path), TIB(3, random_state=0, **settings).fit(views)
    )
    assert not path.exists()


def test_killed_in_the_second_schedule(views, tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules["tib.twin.fit"], "CLEARLY", -2.0)  # so that a second one there always is
    path, settings = tmp_path / "checkpoint.pt", {"restarts": 2, "epochs": 20}
    stages = killed_after(28, TIB(3, random_state=0, **settings), views, path)
    assert stages[-1][0] == "anchored"
    assert_same(
        TIB(3, random_state=0, **settings).fit(views, checkpoint=path), TIB(3, random_state=0, **settings).fit(views)
    )


def test_the_reference_goes_on_too(views, tmp_path):
    views = {name: np.nan_to_num(view) for name, view in views.items()}
    path, settings = tmp_path / "checkpoint.pt", {"objective": "reference", "restarts": 2, "epochs": 30}
    killed_after(11, TIB(3, random_state=0, **settings), views, path)
    assert killed_after(3, TIB(3, random_state=0, **settings), views, path)[0][1] == 11
    assert_same(
        TIB(3, random_state=0, **settings).fit(views, checkpoint=path), TIB(3, random_state=0, **settings).fit(views)
    )


def test_one_of_other_views_or_settings_is_not_gone_on_from(views, tmp_path):
    path = tmp_path / "checkpoint.pt"
    killed_after(11, TIB(3, random_state=0, restarts=1), views, path)
    assert killed_after(2, TIB(3, random_state=1, restarts=1), views, path)[0][1] == 1
    others = {name: view + 1 for name, view in views.items()}
    assert killed_after(2, TIB(3, random_state=1, restarts=1), others, path)[0][1] == 1


@pytest.mark.parametrize("content", [b"", b"no checkpoint", b"PK\x03\x04 cut off"])
def test_a_damaged_one_is_told_and_training_starts_anew(views, tmp_path, content):
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(content)
    with pytest.warns(UserWarning, match="is of no use .*: training starts anew"):
        killed_after(1, TIB(3, random_state=0, restarts=1), views, path)


def test_without_a_random_state_there_is_nothing_to_go_on_to(views, tmp_path):
    with pytest.raises(ValueError, match="a checkpoint needs a random_state"):
        TIB(3).fit(views, checkpoint=tmp_path / "checkpoint.pt")


def test_a_disk_that_refuses_it_stops_no_training(views, tmp_path):
    (tmp_path / "a file").write_bytes(b"")
    with pytest.warns(UserWarning, match="cannot write .*: training goes on without it"):
        TIB(3, random_state=0, restarts=1, epochs=2).fit(views, checkpoint=tmp_path / "a file" / "checkpoint.pt")
