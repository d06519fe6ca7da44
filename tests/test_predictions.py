"""Predictions as they come: block by block the same, what a clip lacks, and what is told of all of them."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from test_predict import assigned

from pipeline import predict as module
from pipeline import predictions
from pipeline.reduction import Reduction
from pipeline.run import Run
from pipeline.views import Views


class _Halves:
    """Stands for a model that takes rows of NaN: visual alone agrees with the whole."""

    objective, view_names_, n_features_in_ = "any", ["text", "visual"], {"text": 2, "visual": 3}
    labels_, confidence_, n_clusters_ = np.array([0, 1, 1]), np.array([0.6, 0.9, 0.9]), 2  # of its training

    def iter_posteriors(self, views):
        own = {"text": [0.8, 0.2], "visual": [0.2, 0.8]}
        alone = {name: np.where(np.isnan(views[name][:, :1]), np.nan, [p]) for name, p in own.items()}
        yield slice(None), np.where(np.isnan(views["visual"][:, :1]), [[0.4, 0.6]], [[0.1, 0.9]]), alone


@pytest.mark.parametrize("block", [1, 2, 8192])
def test_missing_rows_and_views_go_to_a_model_that_takes_them(tmp_path, capsys, monkeypatch, block):
    monkeypatch.setattr(predictions, "BLOCK", block)
    stand_in = Run(tmp_path, _Halves(), {}, {})
    text, visual = np.ones((4, 2), np.float32), np.ones((4, 3), np.float32)
    visual[1, 0] = np.nan  # in part, which is as good as none
    text[2:] = visual[2:] = np.nan
    ids = ["a", "b", "c", "d"]
    readers = module._for_model(stand_in, Views(ids, {"text": text, "visual": visual, "odour": text}))
    assert predictions.predict_and_write(stand_in, ids, readers, tmp_path / "p.csv") == 2
    # b: visual has no vote, since the clip has none
    assert assigned(tmp_path / "p.csv") == {"a": (1, 0.9, 0.5), "b": (1, 0.6, 0.0)}
    said = capsys.readouterr().out
    told = json.loads((tmp_path / "drift.json").read_text())
    assert (told["clips"], told["clips_of_the_training"], told["refit_due"]) == (2, 3, False)
    assert "drift: 2 clips beside the 3 of the training: " in said
    assert "odour: not a view of this run (text, visual); left out" in said
    assert "2 clips have no prediction: c (nothing to go by), d (nothing to go by)" in said
    assert "visual: 1 clips have NaN beside numbers and are taken as lacking it" in said
    alone = module._for_model(stand_in, Views(["a"], {"text": text[:1]}))
    assert predictions.predict_and_write(stand_in, ["a"], alone, tmp_path / "p.csv") == 0
    assert assigned(tmp_path / "p.csv") == {"a": (1, 0.6, 0.0)}


def test_views_of_the_runs_own_reduction_are_not_reduced_again_where_dims_do_not_tell(tmp_path):
    halved = Reduction(np.zeros(2, np.float32), np.full(2, 2, np.float32), None, 1.0)
    stand_in = Run(tmp_path, _Halves(), {"text": halved}, {})
    views = Views(["a"], {"text": np.ones((1, 2), np.float32)})
    assert module._for_model(stand_in, views)["text"](slice(1)).tolist() == [[0.5, 0.5]]
    assert module._for_model(stand_in, views, reduced=True)["text"](slice(1)).tolist() == [[1.0, 1.0]]


def test_low_confidence_is_told_with_the_first_clips_by_name(tmp_path, capsys):
    ids, confidence = [f"c{i}" for i in range(13)], np.array([0.9] + [0.4] * 12)
    told = predictions._Told(_Halves())
    for rows in (slice(7), slice(7, 13)):
        told.add(ids[rows], np.zeros(13, int)[rows], confidence[rows])
    told.say(SimpleNamespace(folder=tmp_path, encoders={}), tmp_path / "p.csv")
    told = capsys.readouterr().out
    assert "12 of low confidence, below 0.5: c1, c2, c3, c4, c5, c6, c7, c8, c9, c10 and 2 more" in told
    assert "13 clips, 1 clusters, mean confidence 0.438" in told
