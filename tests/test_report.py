"""The report's contents, gathered from a run on real clips, and the page that is written of them."""

import csv
import json
import os
from dataclasses import replace

import numpy as np
import pytest
from media_factory import write_clip
from report_factory import MODALITIES, QUICK, finish, planted, write_features, write_workdir
from sklearn.metrics import adjusted_rand_score

import pipeline.report.html as package
from pipeline.config import load_settings
from pipeline.corpora.base import CorpusClip
from pipeline.errors import PipelineError
from pipeline.reduce import reduce
from pipeline.report.accounts import accounts
from pipeline.report.contents import gather
from pipeline.report.html import render, report, script_json
from pipeline.report.run import read_material, read_run
from tib import TIB

pytestmark = pytest.mark.usefixtures("one_thread")
N, K = 30, 3
NASTY = ("</script><script>alert(1)</script>", "a/b \"quoted\" 'id'", "<!-- & --> 🎬 \u2028 好")
LONGER = "train.epochs=60"  # enough to find what was planted
SAID = ("wonderful film", "awful film", "so so")


@pytest.fixture(scope="module")
def of_clips(tmp_path_factory):
    """A run on clips of real media, with embeddings in stores: two failed, one was never tried, one file is broken."""
    folder = tmp_path_factory.mktemp("clips")
    root, work = folder / "raw", folder / "work"
    root.mkdir()
    ids = [*NASTY, *(f"clip{i}" for i in range(len(NASTY), N))]
    for i in range(N):
        write_clip(root / f"{i} #.mp4", size=(32, 24), fps=10, duration_s=0.6, tones_hz=(120.0 + 60 * (i % K),))
    (root / "5 #.mp4").write_bytes(b"broken")
    clips = [CorpusClip(clip_id, f"{i} #.mp4", 0.0, None, f"{SAID[i % K]} {i}") for i, clip_id in enumerate(ids)]
    clips[0] = replace(clips[0], transcript="</script><b>wonderful</b> film")
    clips[7] = replace(clips[7], transcript="awful \ud83d film")  # half an emoji
    labels = {clip_id: f"<{'abc'[i % K]}>" for i, clip_id in enumerate(ids) if i < 20}
    known = write_workdir(work, root, clips, labels)
    failures = {"visual": {"clip5": "undecodable", "clip6": ""}, "audio": {"clip5": "undecodable"}}
    write_features(work, known, planted(N, K), failures, trained=False)
    words = [*QUICK, LONGER, f"train.n_clusters={K}", "reduce.dim=4", "extract.audio.weights=random"]
    settings = load_settings(None, words, name="clips", workdir=work, out=folder / "results" / "run 1")
    reduce(settings)
    return finish(settings)


@pytest.fixture(scope="module")
def page(of_clips):
    return gather(of_clips)


def columns(page):
    return {name: getattr(page.clips, name) for name in page.clips.__slots__ if name != "by_modality"}


def test_every_column_has_a_row_a_clip_in_the_order_of_the_assignments(page, of_clips):
    with (of_clips.results / "assignments.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert page.clips.clip_id == [row["clip_id"] for row in rows]
    assert page.clips.cluster == [int(row["cluster"]) for row in rows]
    assert page.clips.confidence == pytest.approx([float(row["confidence"]) for row in rows], abs=1e-4)
    assert page.clips.agreement == pytest.approx([float(row["agreement"]) for row in rows], abs=1e-4)
    assert {name: len(column) for name, column in columns(page).items()} == dict.fromkeys(columns(page), N)
    assert {name: len(column) for name, column in page.clips.by_modality.items()} == dict.fromkeys(MODALITIES, N)
    assert [len(one.x) for one in page.maps] == [len(one.y) for one in page.maps] == [N, N]


def test_clips_have_their_words_labels_media_and_voice(page, of_clips):
    row = page.clips.clip_id.index("clip4")
    assert page.clips.transcript[row] == "awful film 4"
    assert page.clips.label[row] == "<b>"
    assert page.clips.media[row] == "../../raw/4%20%23.mp4"
    assert (of_clips.results / "../../raw/4 #.mp4").is_file()
    assert page.clips.media_kind[row] == "video"
    assert page.clips.thumbnail[row].startswith("data:image/webp;base64,")
    assert page.clips.duration_s[row] == pytest.approx(0.6, abs=0.05)
    assert page.clips.pitch_hz[row] == pytest.approx(180, rel=0.02)
    assert page.clips.words_per_s[row] == pytest.approx(3 / 0.6, rel=0.1)
    assert page.clips.label[page.clips.clip_id.index("clip20")] is None


def test_a_broken_file_and_a_lacking_modality_leave_gaps(page):
    row = page.clips.clip_id.index("clip5")
    assert page.clips.media_kind[row] == "file"
    assert page.clips.thumbnail[row] == ""
    assert [getattr(page.clips, name)[row] for name in ("duration_s", "pitch_hz", "loudness_db", "words_per_s")] == [
        None
    ] * 4
    assert [page.clips.by_modality[name][row] is None for name in MODALITIES] == [False, True, True]


def test_the_clusters_are_the_planted_ones_and_their_cards_say_why(page):
    assert [cluster.size for cluster in page.clusters] == sorted((c.size for c in page.clusters), reverse=True)
    assert sum(cluster.size for cluster in page.clusters) == N
    pitches = {"a": 120, "b": 180, "c": 240}
    for cluster in page.clusters:
        (label, n), *others = cluster.labels
        letter = label[1]
        assert not others
        assert cluster.n_labelled == n
        assert {"a": "wonderful", "b": "awful", "c": "so"}[letter] in [word.word for word in cluster.words]
        assert cluster.voice[0].here == pytest.approx(pitches[letter], rel=0.02)
        assert set(cluster.typical).isdisjoint(cluster.least_sure)
        assert {page.clips.cluster[row] for row in (*cluster.typical, *cluster.least_sure)} == {cluster.cluster}
        assert [m.modality for m in cluster.modalities] == ["visual", "text", "audio"]
        assert f"“{label}” ({n} of {n} labelled)" in cluster.summary
    assert max(abs(voice.sds) for cluster in page.clusters for voice in cluster.voice) > 1


def test_the_confusion_matrix_is_of_the_labelled_clips_and_diagonal(page):
    counts = np.array(page.confusion["counts"])
    assert page.confusion["labels"] == ["<a>", "<b>", "<c>"]
    assert counts.sum() == page.n_scored == 20
    assert np.trace(counts) == 20


def test_history_and_restarts_are_those_of_the_model(page, of_clips):
    model = TIB.load(of_clips.results)
    assert list(page.history)[-1] == "loss"
    assert page.history["loss"] == pytest.approx([row["loss"] for row in model.history_])
    assert page.restarts["loss"] == pytest.approx(model.restart_losses_.tolist())
    assert page.restarts["ari"] == pytest.approx([adjusted_rand_score(model.labels_, r) for r in model.restart_labels_])
    assert len(page.restarts["acc"]) == 2


def test_the_accounts_come_out_and_every_loss_has_its_cause(page):
    counts = {(what, modality): n for what, modality, n in page.counts}
    assert counts["done", "visual"] == 28
    assert counts["failed", "visual"] == 1
    assert counts["skipped", "visual"] == 1
    for modality in MODALITIES:
        assert counts["manifest", modality] == N
        assert sum(counts[what, modality] for what in ("done", "failed", "skipped")) == N
    assert sorted((f.clip_id, f.modality, f.stage, f.cause) for f in page.failures) == [
        ("clip5", "audio", "read", "undecodable"),
        ("clip5", "visual", "read", "undecodable"),
        ("clip6", "visual", "extract", "not_extracted"),
    ]
    assert {f.detail for f in page.failures if f.clip_id == "clip5"} == {"5 #.mp4: a test's"}  # not where it lies


def test_what_is_not_listed_is_counted_and_said(of_clips, page, monkeypatch):
    monkeypatch.setattr("pipeline.report.accounts.MOST_LISTED", 1)
    material = read_material(of_clips, read_run(of_clips.results))
    found = accounts(of_clips, read_run(of_clips.results), replace(material, left_out=["x", "y", "z"]))
    assert found.counts == page.counts
    assert [f.clip_id for f in found.failures] == ["clip5", "clip6", "clip5", "x"]
    assert found.n_unlisted == 2
    monkeypatch.setattr("pipeline.report.contents.accounts", lambda *_: found)
    told = "2 more entries of clips that failed or were left out are not listed below"
    assert any(warning.startswith(told) for warning in gather(of_clips).headline.warnings)


def test_clips_that_prepare_lost_are_told(of_clips):
    path = of_clips.work / "problems.csv"
    path.write_text("kind,where,message\nmissing_file,table.csv:7,no such file\nnot_utf8,a.txt,read as 1252\n")
    try:
        lost = [failure for failure in gather(of_clips).failures if failure.stage == "prepare"]
    finally:
        path.unlink()
    assert [(f.clip_id, f.cause, f.detail) for f in lost] == [("table.csv:7", "missing_file", "no such file")]


def test_problems_that_cannot_be_read_are_refused(of_clips):
    path = of_clips.work / "problems.csv"
    path.write_text('kind,where\n"missing')
    try:
        with pytest.raises(PipelineError, match=r"cannot read .*problems\.csv .*run `prepare` again"):
            gather(of_clips)
    finally:
        path.unlink()


def test_provenance_names_weights_seeds_versions_and_how_to_make_it_again(page, of_clips):
    told = {(group, name): value for group, name, value in page.provenance}
    assert told["encoder: visual", "weights: sha256"] == "ab" * 32
    assert told["encoder: visual", "weights: licence"] == "CC0 (a test's)"
    assert told["encoder: audio", "weights"] == "RANDOM, never trained"
    assert told["training", "seed"] == "0"
    assert told["packages", "torch"].startswith("2.")
    assert "Python" in [name for group, name, _ in page.provenance if group == "run"]
    assert page.commands[-1] == f"python -m pipeline report --out '{of_clips.results}'"
    assert page.commands[-2].startswith("python -m pipeline run --config '")
    assert "n_clusters: 3" in page.config
    assert page.made


def test_the_headline_says_it_in_words(page):
    head = page.headline
    assert (head.n_clips, head.n_clusters, head.n_clusters_used, head.n_restarts) == (N, K, K, 2)
    assert head.sentences[0] == "30 clips are in 3 clusters; no label was used to find them."
    assert "20 of 20 labelled clips, 100%, are in their label's cluster (ACC 1.00, NMI 1.00," in head.sentences[1]
    assert "each restart alone ACC " in head.sentences[1]
    assert "calling every clip the largest class gets 35%, k-means on all views" in head.sentences[1]
    assert 0 < head.confidence <= 1
    assert head.stability is not None
    for name in ("visual", "text", "audio"):
        assert (
            f"The {name} encoder has random weights: it was never trained, so its embeddings mean little."
            in head.warnings
        )
    assert "20 of 30 clips have a label: the scores are of those alone." in head.warnings


def test_a_workdir_can_be_the_views_and_its_clips_are_told(of_clips, page):
    settings = load_settings(
        None, [*QUICK, f"train.n_clusters={K}"], name="again", views=of_clips.work, out=of_clips.work.parent / "again"
    )
    found = gather(finish(settings))
    assert found.clips.transcript == page.clips.transcript
    assert found.clips.media_kind == page.clips.media_kind
    assert found.n_scored == 20
    assert (settings.results / "report").is_dir()


def test_a_second_report_draws_and_reads_nothing_again(of_clips, page, monkeypatch):
    monkeypatch.setattr("pipeline.report.clip_facts.read_facts", lambda clip: pytest.fail("read again"))
    monkeypatch.setattr("pipeline.report.clip_map._tsne", lambda components: pytest.fail("drawn again"))
    again = gather(of_clips)
    assert replace(again, made=page.made) == page


def test_media_can_be_put_into_the_page(of_clips):
    found = gather(of_clips, embed_media=True)
    assert sum(url.startswith("data:video/mp4;base64,") for url in found.clips.media) == N - 1
    assert any("1 clips are linked, not embedded" in warning for warning in found.headline.warnings)


def test_raw_clips_that_have_moved_are_a_warning(of_clips, page):
    root = of_clips.work.parent / "raw"
    root.rename(root.with_name("moved"))
    try:
        found = gather(of_clips)
    finally:
        root.with_name("moved").rename(root)
    assert set(found.clips.media) == {""}
    assert any("media of 30 of 30 clips are not where they were" in warning for warning in found.headline.warnings)
    assert found.clips.thumbnail == page.clips.thumbnail  # as read before
    assert found.failures == page.failures


def test_of_very_many_clips_a_sample_is_read(of_clips, monkeypatch):
    monkeypatch.setattr("pipeline.report.contents.MOST_READ", 20)
    monkeypatch.setattr("pipeline.report.clusters.SHOWN", 2)
    found = gather(of_clips)
    assert any("20 of 30 clips were read" in warning for warning in found.headline.warnings)
    in_cards = {row for cluster in found.clusters for row in (*cluster.typical, *cluster.least_sure)}
    pictured = {row for row, uri in enumerate(found.clips.thumbnail) if uri} | {found.clips.clip_id.index("clip5")}
    assert in_cards <= pictured
    assert 20 <= len(pictured) <= 21
    assert sum(cluster.voice[0].n_clips for cluster in found.clusters) in (19, 20)
    assert found.clips.media_kind.count("video") == 29


def test_a_manifest_that_is_broken_is_a_warning(of_clips):
    path = of_clips.work / "manifest.jsonl"
    before = path.read_bytes()
    path.write_bytes(b"{")
    try:
        found = gather(of_clips)
    finally:
        path.write_bytes(before)
    assert any("Nothing is told of the clips themselves" in warning for warning in found.headline.warnings)
    assert set(found.clips.transcript) == {""}
    assert found.counts == []


@pytest.fixture
def template(tmp_path, monkeypatch):
    """A small template in place of the page's own."""
    (tmp_path / "report.html.j2").write_text(
        "<title>{{ page.name }}</title><style>{{ css }}</style><b>{{ page.clusters[0].summary }}</b>"
        "{% for text in page.clips.transcript %}<p>{{ text }}</p>{% endfor %}"
        "{% for id in page.clips.clip_id %}<i>{{ id }}</i>{% endfor %}"
        '<script type="application/json" id="data">{{ script }}</script>'
        "<script>{{ plotly }}</script><script>{{ js }}</script>"
    )
    (tmp_path / "report.css").write_text("a > b {}")
    (tmp_path / "report.js").write_text("if (1 < 2 && 3) {}")
    monkeypatch.setattr(package, "_HERE", tmp_path)


def test_text_is_escaped_everywhere(page, template):
    html = render(page)
    body, rest = html.split('<script type="application/json" id="data">')
    data, scripts = rest.split("</script>", 1)
    assert "<script" not in body
    assert "&lt;/script&gt;&lt;b&gt;wonderful&lt;/b&gt; film" in body
    assert not set(data) & set("<>&\u2028\u2029")
    assert "a > b {}" in body
    assert "if (1 < 2 && 3) {}" in scripts
    assert "Plotly" in scripts


def test_the_scripts_data_is_the_page(page):
    data = json.loads(script_json(page))
    assert data == json.loads(json.dumps(page.for_script()))
    assert data["clips"]["clip_id"][:3] == list(NASTY)
    assert data["clips"]["transcript"][0] == "</script><b>wonderful</b> film"
    assert data["clips"]["label"][0] == "<a>"


def test_a_value_that_json_lacks_is_never_written(page):
    with pytest.raises(ValueError, match="not JSON compliant"):
        script_json(replace(page, silhouette={"all": float("nan")}))


def test_half_a_character_is_written_as_a_question_mark(of_clips, template):
    assert "<p>awful ? film</p>" in report(of_clips).read_text(encoding="utf-8")


def test_the_page_is_written_whole_beside_the_results(of_clips, template, monkeypatch):
    path = report(of_clips)
    assert path == of_clips.results / "report.html"
    html = path.read_text(encoding="utf-8")
    assert html.startswith("<title>clips</title>")
    monkeypatch.setattr(package, "render", lambda page: (_ for _ in ()).throw(RuntimeError("template")))
    with pytest.raises(RuntimeError, match="template"):
        report(of_clips)
    assert path.read_text(encoding="utf-8") == html
    assert not [name for name in os.listdir(of_clips.results) if name.startswith(".writing")]
