"""Files of strangers: whatever is in them, they are read or refused in words. The fuzzers of benchmarks/, in short."""

import json
import math
import string
from contextlib import nullcontext

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

from benchmarks import fuzz_coverage
from benchmarks.fuzz_files import fuzz_files
from benchmarks.fuzz_media import fuzz_media
from benchmarks.mutations import what_is_wrong_with
from pipeline.assignments import read_assignments
from pipeline.config import Settings, load_settings, setting_names
from pipeline.corpora.base import CorpusClip, natural_key
from pipeline.corpora.label_rules import LABEL_RULES, apply_label_rule
from pipeline.corpora.mmsa import segment_id
from pipeline.corpora.tables import decode_text, format_table, parse_number, parse_rows, read_table
from pipeline.errors import MAX_MESSAGE, PipelineError
from pipeline.evaluate import evaluate, show
from pipeline.ingest import ingest
from pipeline.manifest import read_labels, read_manifest, write_labels, write_manifest
from pipeline.status import status
from pipeline.views import Views

QUICK = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
WORDS = some.text(some.characters(exclude_categories=["Cs"]), max_size=20)  # no half surrogate pairs: no file has them
NAMES = WORDS.filter(lambda text: text and "\0" not in text)
KEYS = some.sampled_from(list(setting_names(Settings))) | some.text(string.ascii_lowercase + "._", max_size=12)
VALUES = some.recursive(
    some.none() | some.booleans() | some.integers() | some.floats() | WORDS,
    lambda inner: some.lists(inner, max_size=3) | some.dictionaries(WORDS, inner, max_size=3),
    max_leaves=6,
)


def read_or_refused_in_words(read, *arguments) -> None:
    """What came of it; any error but a PipelineError in words fails the test."""
    told = None
    try:
        read(*arguments)
    except PipelineError as error:
        told = str(error)
    assert told is None or what_is_wrong_with(told) is None


# What is written is read again


@QUICK
@given(some.lists(some.tuples(WORDS, WORDS), max_size=5))
def test_a_table_comes_back_to_the_character(rows):
    assert [tuple(cells) for _, cells in parse_rows(format_table(("a", "b"), rows))] == [("a", "b"), *rows]


@QUICK
@given(rows=some.dictionaries(NAMES, some.tuples(WORDS, WORDS, some.floats(0, 1e6)), max_size=4))
def test_a_manifest_comes_back_to_the_character(tmp_path, rows):
    # A folder before it, as "/" and ".." alone are paths that no clip can have.
    clips = [CorpusClip(name, f"clips/{media.replace('..', '')}", start_s, start_s + 1, words)
             for name, (media, words, start_s) in rows.items() if "\0" not in media]  # fmt: skip
    write_manifest(tmp_path / "manifest.jsonl", clips)
    assert read_manifest(tmp_path / "manifest.jsonl") == clips


@QUICK
@given(labels=some.dictionaries(WORDS, WORDS, max_size=5))
def test_labels_come_back_to_the_character(tmp_path, labels):
    write_labels(tmp_path / "labels.csv", labels)
    assert read_labels(tmp_path / "labels.csv") == labels


@QUICK
@given(data=some.binary(max_size=200))
def test_any_bytes_are_text(data):
    text, note = decode_text(data)
    assert "\0" not in text
    text.encode("utf-8")
    assert note is None or what_is_wrong_with(note) is None


@QUICK
@given(WORDS, WORDS)
def test_ids_are_ordered_totally_and_lose_only_leading_zeros(one, other):
    assert (natural_key(one) == natural_key(other)) == (one == other)
    assert segment_id("v", "007") == segment_id("v", "7") != segment_id("v", "70")


# What is read, is read or refused in words


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(parse_number(text))
    except ValueError:
        return False


@QUICK
@given(value=WORDS, rule=some.sampled_from(list(LABEL_RULES)))
def test_a_label_is_a_class_or_a_value_error(value, rule):
    if rule == "as_is":
        assert apply_label_rule(value, rule) == value.strip()
        return
    with pytest.raises(ValueError, match="expected a number") if not _is_number(value) else nullcontext():
        apply_label_rule(value, rule)


@QUICK
@given(data=some.binary(max_size=200) | WORDS.map(str.encode))
def test_any_bytes_are_a_table_or_are_refused(tmp_path, data):
    (tmp_path / "clips.csv").write_bytes(data)
    read_or_refused_in_words(read_table, tmp_path / "clips.csv", "clips.csv")


@pytest.mark.parametrize("parser", list(fuzz_coverage.PARSERS))
def test_bytes_like_those_of_each_parser_are_read_or_refused(parser):
    first = fuzz_coverage.PARSERS[parser][1]

    @QUICK
    @given(some.integers(0, len(first)), some.integers(0, len(first)), some.binary(max_size=8))
    def parse(start, end, inserted):
        fuzz_coverage.parse(parser, first[:start] + inserted + first[end:])

    parse()


@QUICK
@given(values=some.dictionaries(KEYS, VALUES, max_size=3))
def test_any_mapping_is_settings_or_is_refused(tmp_path, values):
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(values, allow_unicode=True), encoding="utf-8", errors="replace")
    read_or_refused_in_words(load_settings, tmp_path / "mine.yaml")


@QUICK
@given(key=KEYS, value=WORDS | VALUES.map(json.dumps))
def test_any_override_is_a_setting_or_is_refused(key, value):
    read_or_refused_in_words(load_settings, None, [f"{key}={value}"])


# Faults that the fuzzers found


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("train: &t {x: *t}", "is not YAML: an alias", id="a group within itself"),
        pytest.param("[" * 5000, "is not YAML: .*nested too deep", id="5000 brackets"),
        pytest.param("train: {n_clusters: " + "9" * 5000 + "}", "is not YAML", id="a number of 5000 digits"),
        pytest.param("train: {learning_rate: .inf}", "train.learning_rate: input should be a finite", id="infinity"),
        pytest.param('workdir: "a\\0b"', "workdir: it holds a NUL character", id="NUL in a path"),
        pytest.param(f"train: {{? {'x' * 9000} : 1}}", r"unknown setting 'train.x+ \[\.\.\.\] ", id="a long name"),
        pytest.param(f"train: {{n_clusters: {'x' * 9000}}}", r"got 'x+\.\.\.x+'$", id="a long value"),
    ],
)
def test_settings_of_a_stranger_are_refused_in_a_line(tmp_path, text, message):
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(PipelineError, match=message) as error:
        load_settings(tmp_path / "mine.yaml")
    assert len(str(error.value)) < 2 * MAX_MESSAGE


def test_an_override_nested_too_deep_is_refused():
    with pytest.raises(PipelineError, match="--set train.n_clusters: .*nested too deep"):
        load_settings(None, ["train.n_clusters=" + "[" * 5000])


def test_a_message_is_one_line_that_can_be_read():
    assert str(PipelineError("two\n  lines")) == "two lines"
    assert str(PipelineError("a  path")) == "a  path"
    long = str(PipelineError("begin" + "x" * 10**6 + "; do this"))
    assert len(long) < MAX_MESSAGE + 10
    assert long.startswith("begin")
    assert long.endswith("; do this")


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("clip_id", "\ud800", "surrogates not allowed"),
        ("media", "\ud800.mp4", "surrogates not allowed"),
        ("media", "a\0b", "media holds a NUL character"),
    ],
)
def test_a_name_that_no_file_can_have_is_refused(tmp_path, field, value, message):
    (tmp_path / "manifest.jsonl").write_text(json.dumps({"clip_id": "a", "media": "a.mp4"} | {field: value}))
    with pytest.raises(PipelineError, match=rf"manifest.jsonl:1: not a clip: .*{message}"):
        read_manifest(tmp_path / "manifest.jsonl")


def test_a_setting_whose_name_is_no_text_is_refused():
    with pytest.raises(PipelineError, match="the name of a setting: input should be a valid string"):
        load_settings(None, ["\udcf4=1"])


@pytest.mark.parametrize(
    ("path", "content", "message"),
    [
        ("run.json", '{"inputs": 1, "n_clusters": "2", "views_digest": "x"}', "no finished run in .*n_clusters: input"),
        ("run.json", "[" * 100_000, "no finished run in .*nested too deep"),
        ("metrics.json", '{"n_clips": 1}', "cannot read .*metrics.json .n_clusters: field required.; run `evaluate`"),
        ("metrics.json", "[]", "cannot read .*metrics.json .not an object.; run `evaluate`"),
        ("assignments.csv", "clip_id,other\na,1\n", "cannot read .*assignments.csv .*no column cluster.*run `train`"),
    ],
)
def test_records_of_a_run_are_refused_by_name(tmp_path, path, content, message):
    (tmp_path / path).write_text(content)
    chosen = load_settings(None, out=tmp_path)
    read = {
        "run.json": lambda: evaluate(chosen, Views([], {}), {}),
        "metrics.json": lambda: show(chosen),
        "assignments.csv": lambda: read_assignments(tmp_path / "assignments.csv"),
    }
    with pytest.raises(PipelineError, match=message):
        read[path]()


@pytest.mark.parametrize(
    ("path", "content", "message"),
    [
        ("problems.csv", b"kind,where,message\n\xff,a,b\n", "cannot read .*problems.csv .*run `prepare` again"),
        ("corpus.json", b'{"root": "' + b"x" * 5000 + b'"}', "cannot read .*corpus.json .*run `prepare` again"),
    ],
)
def test_what_prepare_left_is_refused_by_name(tmp_path, path, content, message):
    write_manifest(tmp_path / "manifest.jsonl", [CorpusClip("a", "a.mp4")])
    (tmp_path / "corpus.json").write_text(json.dumps({"root": str(tmp_path)}))
    (tmp_path / path).write_bytes(content)
    with pytest.raises(PipelineError, match=message):
        status(load_settings(None, ["extract.audio.weights=random"], workdir=tmp_path))


def test_an_archive_whose_bits_have_flipped_is_refused(tmp_path):
    np.savez_compressed(tmp_path / "features.npz", text=np.random.default_rng(0).integers(9, size=(40, 8)))
    whole = (tmp_path / "features.npz").read_bytes()
    for place in range(60, len(whole) - 120, 3):
        (tmp_path / "features.npz").write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        read_or_refused_in_words(ingest, tmp_path / "features.npz", "npz", tmp_path / f"out_{place}")


def test_a_computational_sequence_whose_index_is_damaged_is_refused(tmp_path):
    h5py = pytest.importorskip("h5py")
    path = tmp_path / "COVAREP.csd"
    with h5py.File(path, "w") as file:
        file["COVAREP/data/v0/features"] = np.ones((2, 3), np.float32)
        file["COVAREP/data/v0/intervals"] = np.array([[0, 1], [1, 2]], np.float32)
    whole = path.read_bytes()
    places = [place for place in range(len(whole)) if whole.startswith(b"SNOD", place)]
    assert places
    for place in places:  # of each group's index
        path.write_bytes(whole[:place] + b"XNOD" + whole[place + 4 :])
        with pytest.raises(PipelineError, match="COVAREP.csd"):
            ingest(path, "csd", tmp_path / "out")


def test_ids_that_are_no_list_are_refused(tmp_path):
    np.savez(tmp_path / "features.npz", text=np.ones((2, 3)), clip_ids=np.array("a"))
    with pytest.raises(PipelineError, match="clip_ids: expected a list of text, got ndarray"):
        ingest(tmp_path / "features.npz", "npz", tmp_path / "out")


# The campaign itself, in small


def test_damaged_media_are_embeddable_or_have_a_cause():
    found = fuzz_media(60, seed=7)
    assert found["violations"] == []
    assert sum(found["outcomes"]["visual"].values()) == sum(found["outcomes"]["audio"].values()) == 60
    assert 5 < found["outcomes"]["audio"]["embeddable"] < 60


def test_damaged_files_are_read_or_refused():
    found = fuzz_files(150, seed=7)
    assert found["violations"] == []
    told = [outcome for counts in found["outcomes"].values() for outcome in counts]
    assert {"read", "refused"} == set(told)
