"""The export for MMSA: what its data loader takes, and which clips train, validate and test."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from corpus_factory import SMALL_ENCODERS
from export_factory import DIMS, N_CLIPS, UNLABELLED, cached, label_of
from media_factory import write_clip
from torch.nn.utils.rnn import pack_padded_sequence

from pipeline.config import Settings, load_settings
from pipeline.errors import PipelineError
from pipeline.export import content, export, mmsa
from pipeline.export.splits import SPLIT_SHARES, split_clips, video_of
from pipeline.extract import extract
from pipeline.prepare import manifest_of, prepare
from pipeline.view_files import read_views

pytest_plugins = ("export_fixtures",)


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
                assert steps.dtype == np.float32
                off = np.abs(steps).max() / 2048 + 1e-5  # they were kept as float16
                np.testing.assert_allclose(steps.mean(axis=0), expected, rtol=0, atol=off)
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
        rows = [list(views.clip_ids).index(clip_id) for clip_id in part["id"]]
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
    assert not (tmp_path / "out").exists()


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
