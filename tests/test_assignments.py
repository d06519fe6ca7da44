"""What is said of clips comes back from disk as it was, whatever the ids are; half a file is refused by name."""

import numpy as np
import pytest

from pipeline.assignments import (
    ASSIGNMENTS,
    RESTARTS,
    read_assignments,
    read_restarts,
    write_assignments,
    write_restarts,
)
from pipeline.errors import PipelineError

IDS = ["a", 'b, "c"', "=1+1", "ü\nx"]
SAID = [(0, 0.5, 1.0), (2, 1 / 3, 0.0), (1, 0.25, 2 / 3), (0, 1.0, 1.0)]


@pytest.fixture
def folder(tmp_path):
    write_assignments(tmp_path / ASSIGNMENTS, ((clip_id, *said) for clip_id, said in zip(IDS, SAID, strict=True)))
    write_restarts(tmp_path, IDS, np.array([[0, 2, 1, 0], [5, 5, 5, 5]], dtype=np.int16))
    return tmp_path


def test_what_was_written_comes_back(folder):
    found = read_assignments(folder / ASSIGNMENTS)
    assert list(found.clip_ids) == list(found.clip_ids) == IDS  # and again
    assert (len(found), len(found.clip_ids), "=1+1" in found.clip_ids, "d" in found.clip_ids) == (4, 4, True, False)
    assert found.cluster.tolist() == [0, 2, 1, 0]
    np.testing.assert_allclose(np.stack([found.confidence, found.agreement]).T, [s[1:] for s in SAID], atol=1e-6)
    assert read_restarts(folder, found.clip_ids).tolist() == [[0, 2, 1, 0], [5, 5, 5, 5]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, r"no assignments\.csv in .*; run `train` first"),
        ("", "it names no clip"),
        ("clip_id,cluster,confidence,agreement\n", "it names no clip"),
        ("clip_id,cluster\na,1\n", "it has no column confidence"),
        ("clip_id,cluster,confidence,agreement\na,x,1,1\n", "invalid literal"),
        ("clip_id,cluster,confidence,agreement\na,99999999999,1,1\n", "signed integer is greater than maximum"),
        ("clip_id,cluster,confidence,agreement\na,1\n", "line 2: expected 4 cells, got 2"),
    ],
)
def test_other_files_are_refused(folder, text, message):
    path = folder / ASSIGNMENTS
    path.unlink() if text is None else path.write_text(text)
    with pytest.raises(PipelineError, match=message):
        read_assignments(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace("a,", "A,", 1), "name other clips; run `train` again"),
        (lambda text: text.rsplit("\n", 3)[0] + "\n", "name other clips"),
        (lambda text: text + "more,1,1\n", "name other clips"),
        (lambda text: text.replace("a,0,5", "a,0,five"), "cannot read .*restarts.csv .*five.*run `train` again"),
    ],
)
def test_restarts_of_other_clips_are_refused(folder, change, message):
    path = folder / RESTARTS
    path.write_text(change(path.read_text()))
    with pytest.raises(PipelineError, match=message):
        read_restarts(folder, IDS)
