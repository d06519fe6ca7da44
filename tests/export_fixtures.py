"""A real run to export; a test file has these fixtures by naming it in `pytest_plugins`."""

import csv
import json

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from corpus_factory import SMALL_ENCODERS
from export_factory import DIMS, N_CLIPS, SILENT, UNLABELLED, WORDS
from media_factory import write_clip

from pipeline.cluster import train
from pipeline.config import Settings, load_settings
from pipeline.evaluate import labels_of
from pipeline.extract import extract
from pipeline.prepare import manifest_of, prepare
from pipeline.reduce import reduce, views_of


@pytest.fixture(scope="session")
def settings(tmp_path_factory) -> Settings:
    """Real clips, extracted with their sequences, reduced and clustered; one has no sound, one no label."""
    root = tmp_path_factory.mktemp("clips")
    with (root / "clips.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("file", "transcript", "label"))
        for i in range(N_CLIPS):
            name = f"clip_{i:02d}"
            sound = None if name == SILENT else "aac"
            write_clip(root / f"{name}.mp4", duration_s=0.3 + i / 20, tones_hz=(200.0 + 60 * i,), audio_codec=sound)
            rows.writerow((f"{name}.mp4", f"{WORDS[i % 6]} {i}", "" if name == UNLABELLED else i % 4 - 1))
    made = load_settings(
        None,
        [
            *SMALL_ENCODERS,
            *("extract.keep_sequence=true", "reduce.dim=4", "train.n_clusters=2", "train.restarts=2"),
            *("corpus.table=clips.csv", "corpus.label_column=label"),
        ],
        corpus__root=root,
        workdir=tmp_path_factory.mktemp("work"),
    )
    prepare(made)
    assert extract(made, *manifest_of(made)) == 1
    reduce(made)
    views = views_of(made)
    train(made, views, labels_of(made, views))
    return made


@pytest.fixture(scope="session")
def vectors(settings) -> dict[str, dict[str, np.ndarray]]:
    """modality -> clip_id -> embedding, straight from the store's Parquet files."""
    found: dict[str, dict[str, np.ndarray]] = {modality: {} for modality in DIMS}
    for modality, by_id in found.items():
        for path in settings.work.glob(f"features/{modality}/*/part-*.parquet"):
            for row in pq.read_table(path, columns=["clip_id", "embedding"]).to_pylist():
                by_id[row["clip_id"]] = np.array(row["embedding"], dtype=np.float32)
    assert [len(by_id) for by_id in found.values()] == [N_CLIPS, N_CLIPS, N_CLIPS - 1]
    return found


@pytest.fixture(scope="session")
def transcripts(settings) -> dict[str, str]:
    lines = (settings.work / "manifest.jsonl").read_text().splitlines()
    return {row["clip_id"]: row["transcript"] for row in map(json.loads, lines)}


@pytest.fixture(scope="session")
def assignments(settings) -> pd.DataFrame:
    return pd.read_csv(settings.results / "assignments.csv").set_index("clip_id")
