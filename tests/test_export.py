"""Every export is read back by another library, and nothing is overwritten that is not an earlier export."""

import csv
import json
import pickle
from pathlib import Path

import datasets
import numpy as np
import pandas as pd
import polars as pl
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from corpus_factory import SMALL_ENCODERS
from media_factory import write_clip
from torch.nn.utils.rnn import pack_padded_sequence

from pipeline.align import read_views
from pipeline.cluster import train
from pipeline.config import Settings, load_settings
from pipeline.errors import PipelineError
from pipeline.evaluate import labels_of
from pipeline.export import FORMATS, content, export, mmsa
from pipeline.export.splits import SPLIT_SHARES, split_clips, video_of
from pipeline.extract import extract
from pipeline.folders import whole_folder
from pipeline.prepare import manifest_of, prepare
from pipeline.reduce import reduce, views_of
from pipeline.store import EmbeddingStore

WORDS = ['She said "no", twice', "two\nlines", "</script><b>bold</b>", "=1+1; née", "plain words here", "so it goes"]
N_CLIPS = 12
SILENT, UNLABELLED = "clip_03", "clip_05"
DIMS = {"text": 384, "visual": 1280, "audio": 1024}


@pytest.fixture(scope="module")
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


@pytest.fixture(scope="module")
def vectors(settings) -> dict[str, dict[str, np.ndarray]]:
    """modality -> clip_id -> embedding, straight from the store's Parquet files."""
    found: dict[str, dict[str, np.ndarray]] = {modality: {} for modality in DIMS}
    for modality, by_id in found.items():
        for path in settings.work.glob(f"features/{modality}/*/part-*.parquet"):
            for row in pq.read_table(path, columns=["clip_id", "embedding"]).to_pylist():
                by_id[row["clip_id"]] = np.array(row["embedding"], dtype=np.float32)
    assert [len(by_id) for by_id in found.values()] == [N_CLIPS, N_CLIPS, N_CLIPS - 1]
    return found


@pytest.fixture(scope="module")
def transcripts(settings) -> dict[str, str]:
    lines = (settings.work / "manifest.jsonl").read_text().splitlines()
    return {row["clip_id"]: row["transcript"] for row in map(json.loads, lines)}


@pytest.fixture(scope="module")
def assignments(settings) -> pd.DataFrame:
    return pd.read_csv(settings.results / "assignments.csv").set_index("clip_id")


def check_rows(ids, arrays, vectors):
    """Each row is the store's vector to the bit; NaN where the store has none."""
    for modality, array in arrays.items():
        assert array.dtype == np.float32
        assert array.shape == (N_CLIPS, DIMS[modality])
        for clip_id, row in zip(ids, array, strict=True):
            np.testing.assert_array_equal(row, vectors[modality].get(clip_id, np.full(len(row), np.nan)))


def label_of(clip_id: str) -> str:
    return "" if clip_id == UNLABELLED else str(int(clip_id[-2:]) % 4 - 1)


# --- each format, by another library ---


def test_npy_is_the_published_layout(settings, vectors, transcripts, assignments, tmp_path):
    record = export(settings, "npy", tmp_path)
    ids = json.loads((tmp_path / "clip_ids.json").read_text())
    names = {"text": "text", "visual": "video", "audio": "audio"}
    check_rows(ids, {m: np.load(tmp_path / f"{name}.npy") for m, name in names.items()}, vectors)
    assert np.load(tmp_path / "labels.npy").tolist() == [label_of(clip_id) for clip_id in ids]
    beside = pd.read_csv(tmp_path / "transcripts.csv").set_index("clip_id")["transcript"]
    assert beside.to_dict() == transcripts
    clusters = pd.read_csv(tmp_path / "assignments.csv").set_index("clip_id")
    pd.testing.assert_frame_equal(clusters, assignments[["cluster", "confidence"]])
    assert record["missing"] == {"visual": 0, "text": 0, "audio": 1}
    views = read_views(tmp_path)
    check_rows(views.clip_ids, views.arrays, vectors)
    truth = labels_of(Settings(views=tmp_path), views)
    assert truth == {clip_id: label_of(clip_id) for clip_id in ids if clip_id != UNLABELLED}


def test_labels_that_all_clips_have_are_integers(tmp_path):
    views = cached(tmp_path / "views", labels=["3", "-1", "0"])
    export(Settings(views=views), "npy", tmp_path / "out")
    labels = np.load(tmp_path / "out" / "labels.npy")
    assert labels.dtype.kind == "i"
    assert labels.tolist() == [3, -1, 0]


def test_npz_is_read_by_numpy_without_pickles(settings, vectors, assignments, tmp_path):
    export(settings, "npz", tmp_path)
    with np.load(tmp_path / "features.npz", allow_pickle=False) as file:
        ids = file["clip_ids"].tolist()
        check_rows(ids, {"text": file["text"], "visual": file["video"], "audio": file["audio"]}, vectors)
        assert file["labels"].tolist() == [label_of(clip_id) for clip_id in ids]
        assert file["cluster"].tolist() == assignments.loc[ids, "cluster"].tolist()
        np.testing.assert_allclose(file["confidence"], assignments.loc[ids, "confidence"], atol=1e-6)


def test_csv_is_read_by_pandas(settings, vectors, transcripts, assignments, tmp_path):
    export(settings, "csv", tmp_path)
    frame = pd.read_csv(
        tmp_path / "features.csv", dtype={"label": str}, keep_default_na=False, na_values={"cluster": [""]}
    ).set_index("clip_id")
    assert frame.columns[:4].tolist() == ["label", "cluster", "confidence", "transcript"]
    assert frame["label"].to_dict() == {clip_id: label_of(clip_id) for clip_id in transcripts}
    assert frame["transcript"].to_dict() == transcripts
    assert frame["cluster"].tolist() == assignments.loc[frame.index, "cluster"].tolist()
    arrays = {}
    for modality, dim in DIMS.items():
        cells = frame[[f"{modality}_{i}" for i in range(dim)]].replace("", "nan")
        arrays[modality] = cells.to_numpy().astype(str).astype(np.float32)
    check_rows(frame.index, arrays, vectors)


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_parquet_is_read_by_pandas_and_polars(settings, vectors, transcripts, assignments, tmp_path, library):
    export(settings, "parquet", tmp_path)
    path = tmp_path / "features.parquet"
    rows = pd.read_parquet(path).to_dict("records") if library == "pandas" else pl.read_parquet(path).to_dicts()
    ids = [row["clip_id"] for row in rows]
    arrays = {}
    for modality, dim in DIMS.items():
        values = [np.full(dim, np.nan) if row[modality] is None else row[modality] for row in rows]
        arrays[modality] = np.array(values, dtype=np.float32)
    check_rows(ids, arrays, vectors)
    for row in rows:
        label = row["label"] if isinstance(row["label"], str) else ""  # pandas' NaN, polars' None
        assert (label, row["transcript"]) == (label_of(row["clip_id"]), transcripts[row["clip_id"]])
        assert row["cluster"] == assignments.loc[row["clip_id"], "cluster"]


def test_hf_is_read_by_datasets(settings, vectors, transcripts, tmp_path, monkeypatch):
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("it asked the network"))
    export(settings, "hf", tmp_path / "out")
    loaded = datasets.load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))
    assert list(loaded) == ["train"]
    rows = list(loaded["train"])
    ids = [row["clip_id"] for row in rows]
    arrays = {
        m: np.array([[np.nan] * dim if row[m] is None else row[m] for row in rows], dtype=np.float32)
        for m, dim in DIMS.items()
    }
    check_rows(ids, arrays, vectors)
    assert {row["clip_id"]: row["transcript"] for row in rows} == transcripts
    assert {row["clip_id"]: row["label"] or "" for row in rows} == {clip_id: label_of(clip_id) for clip_id in ids}
    card = (tmp_path / "out" / "README.md").read_text()
    assert "`audio` has RANDOM weights" in card
    assert yaml.safe_load(card.split("---")[1])["configs"][0]["data_files"] == [
        {"split": "train", "path": "data/train-*.parquet"}
    ]


def test_hf_has_the_corpus_own_splits(tmp_path):
    views = cached(tmp_path / "views", splits=["test", "train", "valid"])
    export(Settings(views=views), "hf", tmp_path / "out")
    loaded = datasets.load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))
    assert {split: rows["clip_id"] for split, rows in loaded.items()} == {
        "train": ["v_1"],
        "validation": ["v_2"],
        "test": ["v_0"],
    }


# --- mmsa ---


def mmsa_batch(path: Path, mode: str, *, use_bert: bool) -> dict[str, torch.Tensor]:
    """What MMSA's data loader takes of the pickle, for data that are not aligned."""
    with path.open("rb") as file:
        part = pickle.load(file)[mode]
    batch = {name: torch.tensor(part[name].astype(np.float32)) for name in ("vision", "audio")}
    batch["text"] = torch.tensor(part["text_bert" if use_bert else "text"].astype(np.float32))
    batch["labels"] = torch.tensor(np.array(part["regression_labels"]).astype(np.float32))
    for name in ("audio", "vision"):
        lengths = part[f"{name}_lengths"]
        assert [int(lengths[i]) for i in range(len(lengths))] == lengths.tolist()
        pack_padded_sequence(batch[name], torch.tensor(lengths), batch_first=True, enforce_sorted=False)
    sizes = {len(value) for value in batch.values()} | {len(part["raw_text"]), len(part["id"])}
    assert len(sizes) == 1
    return batch


def test_mmsa_gives_its_loader_what_it_takes(settings, vectors, transcripts, tmp_path, capsys):
    record = export(settings, "mmsa", tmp_path)
    path = tmp_path / "features.pkl"
    batches = {mode: mmsa_batch(path, mode, use_bert=False) for mode in ("train", "valid", "test")}
    assert {mode: len(batch["text"]) for mode, batch in batches.items()} == record["splits"]
    assert sum(record["splits"].values()) == N_CLIPS
    assert min(record["splits"].values()) > 0
    shapes = {tuple(batch["vision"].shape[1:]) for batch in batches.values()}
    assert shapes == {(2, DIMS["visual"])}  # two frames a clip, and alike in all parts
    said = capsys.readouterr().out
    assert "1 clips have no audio; zeros stand for it" in said
    assert "1 clips have no label (NaN)" in said
    for mode in batches:
        tokens = mmsa_batch(path, mode, use_bert=True)["text"]
        assert tokens.shape[1] == 3
        assert (tokens[:, 0, 0] == 101).all()  # [CLS]


def test_mmsa_sequences_average_to_the_embeddings(settings, vectors, transcripts, tmp_path):
    export(settings, "mmsa", tmp_path)
    parts = pickle.loads((tmp_path / "features.pkl").read_bytes())
    seen = []
    for part in parts.values():
        for row, clip_id in enumerate(part["id"]):
            seen.append(clip_id)
            for modality, name in (("text", "text"), ("visual", "vision"), ("audio", "audio")):
                n_steps = part[f"{name}_lengths"][row]
                steps, rest = part[name][row][:n_steps], part[name][row][n_steps:]
                expected = vectors[modality].get(clip_id, np.zeros(DIMS[modality]))
                np.testing.assert_allclose(steps.mean(axis=0), expected, rtol=0, atol=1e-5)
                assert not rest.any()
            assert part["raw_text"][row] == transcripts[clip_id]
            assert part["text_bert"][row, 1].sum() == part["text_lengths"][row]  # the same tokens
            number = part["regression_labels"][row]
            assert np.isnan(number) if clip_id == UNLABELLED else number == float(label_of(clip_id))
            sign = -1 if clip_id == UNLABELLED else int(np.sign(number)) + 1
            assert part["classification_labels"][row] == sign
            assert part["annotations"][row] == ("Negative", "Neutral", "Positive", "")[sign]
    assert sorted(seen) == sorted(transcripts)


def test_mmsa_without_sequences_has_vectors_and_says_so(settings, tmp_path, capsys):
    record = export(settings, "mmsa", tmp_path / "reduced", reduced=True)
    assert record["steps"] == {"text": 1, "vision": 1, "audio": 1}
    assert record["reduced"] is True
    views = read_views(settings.work / "reduced")
    for part in pickle.loads((tmp_path / "reduced" / "features.pkl").read_bytes()).values():
        rows = [views.clip_ids.index(clip_id) for clip_id in part["id"]]
        np.testing.assert_array_equal(part["text"][:, 0], views.arrays["text"][rows])
    only_text = settings.extract.model_copy(update={"keep_sequence": False, "visual": None, "audio": None})
    plain = settings.model_copy(update={"extract": only_text, "workdir": tmp_path / "work"})
    prepare(plain)
    extract(plain, *manifest_of(plain))
    record = export(plain, "mmsa", tmp_path / "plain")
    assert record["steps"] == {"text": 1, "vision": 1, "audio": 1}
    said = capsys.readouterr().out
    assert "text: vectors, no sequences; for those extract with extract.keep_sequence=true" in said
    assert f"{N_CLIPS} clips have no vision; zeros stand for it" in said


def test_mmsa_classes_that_are_no_numbers_are_numbered_in_order(tmp_path):
    views = cached(tmp_path / "views", labels=["sad", "", "anger"])
    export(Settings(views=views), "mmsa", tmp_path / "out")
    found = {}
    for part in pickle.loads((tmp_path / "out" / "features.pkl").read_bytes()).values():
        rows = zip(part["annotations"], part["classification_labels"], part["regression_labels"], strict=True)
        found |= dict(zip(part["id"], rows, strict=True))
    assert found["v_0"] == ("sad", 1, 1.0)
    assert found["v_2"] == ("anger", 0, 0.0)
    assert found["v_1"][:2] == ("", -1)
    assert np.isnan(found["v_1"][2])


def test_mmsa_without_a_tokenizer_says_how_to_train(tmp_path, capsys):
    views = cached(tmp_path / "views", transcripts=["a", "b", "c"])
    settings = load_settings(None, ["extract.text.weights=nowhere"], views=views)
    export(settings, "mmsa", tmp_path / "out")
    assert "no text_bert, so MMSA must run with use_bert off: no BERT model at nowhere" in capsys.readouterr().out
    assert "text_bert" not in pickle.loads((tmp_path / "out" / "features.pkl").read_bytes())["train"]


def test_mmsa_takes_its_three_modalities_alone(tmp_path):
    views = cached(tmp_path / "views")
    np.save(views / "depth.npy", np.zeros((3, 2)))
    with pytest.raises(PipelineError, match="mmsa holds text, audio and vision alone, and there is a view 'depth'"):
        export(Settings(views=views), "mmsa", tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


def test_padding_by_hand():
    steps = {"a": np.ones((2, 2), np.float32), "b": np.full((3, 2), 2, np.float32)}
    array, lengths = mmsa.padded(["b", "x", "a"], steps)
    assert array[..., 0].tolist() == [[2, 2, 2], [0, 0, 0], [1, 1, 0]]
    assert lengths.tolist() == [3, 1, 2]
    assert mmsa.padded(["x"], {})[0].shape == (1, 1, 1)


# --- which clips train ---


@pytest.mark.parametrize(
    ("clip_id", "video"),
    [
        ("03bSnISJMiM_11", "03bSnISJMiM"),
        ("_dI--eQ6qVU_1", "_dI--eQ6qVU"),
        ("aqgy4_0004/00023", "aqgy4_0004"),
        ("video$_$7", "video"),
        ("video[12]", "video"),
        ("bbaf4p", "bbaf4p"),
        ("17", "17"),
    ],
)
def test_the_video_of_an_id(clip_id, video):
    assert video_of(clip_id) == video


def test_no_video_stands_on_both_sides_and_shares_are_kept():
    rng = np.random.default_rng(0)
    for n_videos in (3, 10, 93):
        ids = [f"video{v}_{n}" for v in range(n_videos) for n in range(int(rng.integers(5, 40)))]
        videos = {clip_id: video_of(clip_id) for clip_id in ids}
        splits, how = split_clips(ids, videos, {})
        assert set(splits) == set(ids)
        sides = {(videos[clip_id], split) for clip_id, split in splits.items()}
        assert len(sides) == n_videos
        shares = {split: sum(s == split for s in splits.values()) / len(ids) for split in SPLIT_SHARES}
        assert all(shares.values())
        if n_videos > 50:
            assert shares == pytest.approx(SPLIT_SHARES, abs=0.03)
        assert split_clips(ids, videos, {})[0] == splits
        assert f"{n_videos} videos" in how


def test_the_corpus_own_split_is_kept_and_its_videos_followed():
    ids = ["a_1", "a_2", "b_1", "c_1", "d_1"]
    told = {"a_1": "test", "b_1": "valid"}
    splits, how = split_clips(ids, {clip_id: video_of(clip_id) for clip_id in ids}, told)
    assert (splits["a_1"], splits["a_2"], splits["b_1"]) == ("test", "test", "valid")
    assert "train" in (splits["c_1"], splits["d_1"])
    assert how.startswith("the corpus' own; 3 clips without one drawn by video")
    assert split_clips(["a_1"], {"a_1": "a"}, {"a_1": "test"}) == ({"a_1": "test"}, "the corpus' own")


def test_fewer_than_three_videos_are_split_by_clip():
    ids = [f"one_{n}" for n in range(10)]
    splits, how = split_clips(ids, dict.fromkeys(ids, "one"), {})
    assert set(splits.values()) == {"train", "valid", "test"}
    assert how == "drawn by clip, seed 0, as there are fewer than 3 videos"


def test_a_part_without_clips_is_told(tmp_path, capsys):
    views = cached(tmp_path / "views", splits=["train", "train", "test"])
    export(Settings(views=views), "mmsa", tmp_path / "out")
    assert "export: valid is empty, and MMSA needs all three" in capsys.readouterr().out


def test_the_split_of_an_mmsa_corpus_is_its_label_file(tmp_path):
    root = tmp_path / "corpus"
    for video, n in (("v1", 1), ("v1", 2), ("v2", 1)):
        (root / "Raw" / video).mkdir(parents=True, exist_ok=True)
        write_clip(root / "Raw" / video / f"{n:04d}.mp4", duration_s=0.2)
    (root / "label.csv").write_text(
        "video_id,clip_id,text,label,annotation,mode\nv1,0001,good,1.2,Positive,train\nv1,0002,bad,-2,Negative,dev\n"
        "v2,0001,so,0,Neutral,test\n"
    )
    options = [*SMALL_ENCODERS, "extract.visual=null", "extract.audio=null", "corpus.kind=mmsa"]
    settings = load_settings(None, options, corpus__root=root, workdir=tmp_path / "work")
    prepare(settings)
    extract(settings, *manifest_of(settings))
    record = export(settings, "mmsa", tmp_path / "out")
    assert record["split_rule"] == "the corpus' own"
    parts = pickle.loads((tmp_path / "out" / "features.pkl").read_bytes())
    assert {split: part["id"] for split, part in parts.items()} == {
        "train": ["v1_1"],
        "valid": ["v1_2"],
        "test": ["v2_1"],
    }
    found = content.gather(settings, reduced=False)
    assert found.videos == {"v1_1": "v1", "v1_2": "v1", "v2_1": "v2"}


# --- where it goes, and what is told of it ---


def cached(folder: Path, *, labels=(), transcripts=(), splits=()) -> Path:
    """Three clips of cached features."""
    folder.mkdir()
    for modality in DIMS:
        np.save(folder / f"{modality}.npy", np.random.default_rng(len(modality)).normal(size=(3, 4)))
    (folder / "clip_ids.json").write_text(json.dumps(["v_0", "v_1", "v_2"]))
    for name, column, values in (
        ("labels", "label", labels),
        ("transcripts", "transcript", transcripts),
        ("splits", "split", splits),
    ):
        if values:
            lines = [f"v_{i},{value}" for i, value in enumerate(values)]
            (folder / f"{name}.csv").write_text("\n".join([f"clip_id,{column}", *lines]) + "\n")
    return folder


def test_the_recipe_says_how_the_features_were_made(settings, tmp_path):
    record = export(settings, "csv", tmp_path)
    assert json.loads((tmp_path / "export.json").read_text()) == record
    assert record["encoders"]["visual"]["extractor"] == "visual/efficientnet_lite0"
    assert record["untrained_encoders"] == ["audio"]
    assert record["files"] == ["features.csv"]
    assert {"labels": N_CLIPS - 1, "transcripts": N_CLIPS, "assignments": N_CLIPS}.items() <= record.items()
    assert str(settings.work) not in json.dumps(record)


def test_reduced_views_and_a_workdir_given_as_views(settings, vectors, tmp_path):
    export(settings, "npy", tmp_path / "reduced", reduced=True)
    expected = read_views(settings.work / "reduced")
    found = read_views(tmp_path / "reduced")
    assert (found.clip_ids, found.digest()) == (expected.clip_ids, expected.digest())
    as_views = Settings(views=settings.work, out=settings.results)
    export(as_views, "npy", tmp_path / "again", reduced=True)
    assert read_views(tmp_path / "again").digest() == expected.digest()
    record = export(as_views, "npy", tmp_path / "features")
    views = read_views(tmp_path / "features")
    check_rows(views.clip_ids, views.arrays, vectors)
    assert (record["transcripts"], record["assignments"]) == (N_CLIPS, N_CLIPS)
    with pytest.raises(PipelineError, match="holds no reduced views of its own; leave --reduced out"):
        export(Settings(views=tmp_path / "features"), "npy", tmp_path / "no", reduced=True)


def test_a_run_on_other_views_gives_no_clusters(settings, tmp_path, capsys):
    other = settings.model_copy(update={"out": settings.results, "views": cached(tmp_path / "views")})
    assert export(other, "npy", tmp_path / "out")["assignments"] == 0
    assert "holds a run on other views than these; its clusters are left out" in capsys.readouterr().out
    without = settings.model_copy(update={"workdir": tmp_path, "out": settings.results})
    assert content._assignments(without) == {}


def test_a_broken_run_is_told(settings, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "run.json").write_text('{"views_digest": "x"}')
    (run / "assignments.csv").write_text("clip_id,cluster\na,b\n")
    with pytest.raises(PipelineError, match="cannot read the run in .*; run `train` again"):
        export(settings.model_copy(update={"out": run}), "npy", tmp_path / "out")


def test_features_of_other_settings_are_told(settings, tmp_path, capsys):
    """One set of embeddings is taken, and said; none of several is."""
    encoder = settings.extract.text.model_copy(update={"pooling": "cls"})
    alone = settings.extract.model_copy(update={"text": encoder, "visual": None})
    asked = settings.model_copy(update={"extract": alone})
    export(asked, "npy", tmp_path / "out")
    assert "export: text: made with other settings or versions" in capsys.readouterr().out
    copied = asked.model_copy(update={"workdir": tmp_path / "work"})
    prepare(copied)
    with pytest.raises(PipelineError, match="no embeddings in .*features; run `extract` first, with the same config"):
        export(copied, "npy", tmp_path / "none")
    assert "export: audio: not extracted; going on without it" in capsys.readouterr().out
    for dim in (1, 2):
        EmbeddingStore.create(copied.work / "features", "text", {"extractor": "text/bert", "dim": dim}, "x")
    message = r"no text embeddings of these settings in .*, which holds \w{12} \(text/bert\), \w{12} \(text/bert\)"
    with pytest.raises(PipelineError, match=message):
        export(copied, "npy", tmp_path / "none")


def test_an_unknown_format_and_names_that_formats_need(tmp_path):
    with pytest.raises(PipelineError, match="--format: unknown format 'parket'; did you mean 'parquet'"):
        export(Settings(), "parket", tmp_path / "out")
    views = cached(tmp_path / "views")
    np.save(views / "cluster.npy", np.zeros((3, 2)))
    with pytest.raises(PipelineError, match="a view is called 'cluster', which every format needs"):
        export(Settings(views=views), "npz", tmp_path / "out")


def test_only_an_earlier_export_is_replaced(tmp_path):
    settings, out = Settings(views=cached(tmp_path / "views")), tmp_path / "out"
    export(settings, "hf", out)
    (out / "notes.txt").write_text("mine")
    for format_ in FORMATS:
        record = export(settings, format_, out)
        files = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
        assert files == {*record["files"], "export.json", "notes.txt"}
    (out / "video.npy").write_text("mine too")
    with pytest.raises(PipelineError, match="holds video.npy, which is not of export.json; move it"):
        export(settings, "npy", out)
    assert (out / "video.npy").read_text() == "mine too"
    assert json.loads((out / "export.json").read_text())["format"] == record["format"]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("thesis.tex", "mine", "holds other files and no export.json; give a new or an empty folder"),
        ("export.json", "{", "cannot read .*export.json .*; delete the folder, or give another --out"),
        ("export.json", '{"files": ["../thesis.tex"]}', "it names files outside its folder"),
        ("export.json", '{"files": ["/etc/passwd"]}', "it names files outside its folder"),
        ("export.json", '{"files": [3]}', "it names files outside its folder"),
        ("export.json", "[]", "cannot read .*export.json"),
    ],
)
def test_a_folder_of_something_else_is_left_alone(tmp_path, name, text, message):
    settings, out = Settings(views=cached(tmp_path / "views")), tmp_path / "out"
    out.mkdir()
    (out / name).write_text(text)
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(PipelineError, match=message):
        export(settings, "npy", out)
    assert (out / name).read_text() == text
    assert (tmp_path / "thesis.tex").exists()


def test_a_file_in_the_way_is_told(tmp_path):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(PipelineError, match="out is a file; give a folder"):
        export(Settings(views=cached(tmp_path / "views")), "npy", tmp_path / "out")


def test_an_export_that_breaks_leaves_the_earlier_one_whole(tmp_path):
    out = tmp_path / "out"
    export(Settings(views=cached(tmp_path / "views")), "npy", out)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    with pytest.raises(RuntimeError), whole_folder(out, "export.json") as (folder, _):  # noqa: PT012
        (folder / "text.npy").write_text("half")
        raise RuntimeError
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    killed = out / ".writing-folder"
    killed.mkdir()
    (killed / "half.npy").write_text("half")
    export(Settings(views=tmp_path / "views"), "csv", out)
    assert {path.name for path in out.iterdir()} == {"export.json", "features.csv"}


@pytest.mark.parametrize(
    "text", ["clip,transcript\na,b\n", "clip_id,transcript\na\n", 'clip_id,transcript\na,b\na,"c"\n']
)
def test_a_broken_file_beside_the_features_is_told(tmp_path, text):
    views = cached(tmp_path / "views")
    (views / "transcripts.csv").write_text(text)
    with pytest.raises(PipelineError, match=r"cannot read .*transcripts.csv \(.*\); correct it, or delete it"):
        export(Settings(views=views), "npy", tmp_path / "out")
