"""A finished run made again: the same on one machine with one seed; else it is told what was different."""

import json
import shutil
from dataclasses import asdict, replace

import numpy as np
import pytest
import yaml
from corpus_factory import SMALL_ENCODERS, write_folder_corpus
from report_factory import planted, views_run
from terminal import call_main

from pipeline.cli.show import rerun_lines
from pipeline.cluster import train
from pipeline.config import Settings, load_settings
from pipeline.errors import PipelineError
from pipeline.evaluate import evaluate
from pipeline.extract import extract
from pipeline.features import stores_of
from pipeline.manifest import to_clip
from pipeline.prepare import manifest_of, prepare
from pipeline.reduce import reduce, views_of
from pipeline.report.contents import gather
from pipeline.rerun import RECORD, compare, read_original, rerun, rerun_folder

pytestmark = pytest.mark.usefixtures("one_thread")
N, K = 30, 3
N_CLIPS = 6
FAST = ("train.epochs=40", "train.restarts=2", "train.n_clusters=2", "reduce.dim=4", "train.device=cpu")


def made_again(run, out=None, **given):
    original = read_original(run)
    return rerun(original, rerun_folder(original, out), **given)


def edited(run, **train_settings):
    """The run's config.yaml with other settings of train."""
    path = run / "config.yaml"
    config = yaml.safe_load(path.read_text())
    config["train"] |= train_settings
    path.write_text(yaml.safe_dump(config))


@pytest.fixture(scope="module")
def on_views(tmp_path_factory):
    """A run on arrays, its clusters not so plain that any seed finds the same."""
    rng = np.random.default_rng(0)
    views = {name: view + 4 * rng.normal(size=view.shape) for name, view in planted(N, K).items()}
    return views_run(tmp_path_factory.mktemp("views"), views, labels=[str(row % K) for row in range(N)])


@pytest.fixture(scope="module")
def of_clips(tmp_path_factory):
    """A run from raw clips, embedded clip by clip on one thread."""
    base = tmp_path_factory.mktemp("clips")
    root = write_folder_corpus(base / "clips", N_CLIPS)
    one_by_one = [
        f"extract.{m}.{how}" for m in ("visual", "text", "audio") for how in ("batch_size=1", "precision=fp32")
    ]
    settings = load_settings(
        None,
        [*SMALL_ENCODERS, *FAST, *one_by_one, "extract.threads=1", "extract.decode_workers=1"],
        **{"name": "test", "corpus__root": root, "workdir": base / "work"},
    )
    prepare(settings)
    assert extract(settings, *manifest_of(settings)) == 0
    reduce(settings)
    views = views_of(settings)
    train(settings, views, {})
    evaluate(settings, views, {})
    return settings


@pytest.fixture
def run(on_views, tmp_path):
    """A copy of the run on arrays, for a test to change."""
    return shutil.copytree(on_views.results, tmp_path / "run")


def embeddings(work):
    settings = Settings(workdir=work)
    manifest, root = manifest_of(settings)
    stores = stores_of(settings, [to_clip(clip, root) for clip in manifest], "test")
    return {m: store.read(wanted) for m, (store, wanted) in stores.items()}


def as_it_is(folder):
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.rglob("*") if path.is_file()}


def test_the_same_seed_gives_the_same_assignments(run, capsys):
    before = as_it_is(run)
    found = made_again(run)
    assert (found.identical, found.share, found.ari, found.same_views) == (True, 1, 1, True)
    assert found.scores["nmi"][0] == found.scores["nmi"][1] is not None
    assert found.different == []
    assert as_it_is(run) == before
    again = run.with_name("run.rerun")
    assert (again / "assignments.csv").read_bytes() == (run / "assignments.csv").read_bytes()
    assert (again / "report.html").is_file()
    assert json.loads((again / RECORD).read_text())["identical"]
    capsys.readouterr()
    assert made_again(run).identical
    assert "train: wrote" in capsys.readouterr().out, "a rerun is made again too, not looked up"


def test_another_seed_is_told_with_what_it_changed(run, monkeypatch, capsys):
    edited(run, seed=1, restarts=1)
    said = call_main(monkeypatch, capsys, "rerun", run, "--out", run / "other")
    assert said.code == 1
    assert "rerun: different: setting train.seed: 0 then, 1 now" in said.out
    assert "rerun: different: setting train.restarts: 2 then, 1 now" in said.out
    assert "rerun: NOT the same: " in said.out
    assert "of the clips of both are in the same cluster, ARI " in said.out
    settings = load_settings(run / "other" / "config.yaml")
    rows = {(group, name): value for group, name, value in gather(settings).provenance}
    assert rows["made again", "setting train.seed"] == "0 then, 1 now"


def test_assignments_that_were_edited_are_told(run, monkeypatch, capsys):
    path = run / "assignments.csv"
    lines = path.read_text().splitlines()
    clip_id, cluster, *rest = lines[1].split(",")
    lines[1] = ",".join([clip_id, str((int(cluster) + 1) % K), *rest])
    path.write_text("\n".join(lines))
    said = call_main(monkeypatch, capsys, "rerun", run, "--json")
    assert said.code == 1
    values = json.loads(said.out)
    assert values["share"] == pytest.approx((N - 1) / N)
    assert values["different"] == []
    assert "nothing that is recorded was different: the run's files were changed, or this machine" in said.err


def test_the_same_groups_under_other_numbers_are_no_identical_run(run):
    original = read_original(run)
    own = original.assignments
    renumbered = replace(own, cluster=(own.cluster + 1) % K)
    found = compare(original, type(original)(run, original.record, renumbered, original.scores))
    assert (found.identical, found.share, found.ari) == (False, 1, 1)
    assert rerun_lines(asdict(found)) == ["rerun: NOT the same: the same groups of clips, under other cluster numbers"]


def test_other_clips_versions_and_machines_are_told(run):
    original = read_original(run)
    record = json.loads(json.dumps(original.record))
    record["packages"]["torch"] = "1.0"
    record["processor"] = "an abacus"
    record["made_with"]["train"]["threads"] = 99
    record["views_digest"] = "0"
    own = original.assignments
    fewer = replace(own, clip_ids=[*list(own.clip_ids)[1:], "new"], cluster=np.append(own.cluster[1:], 0))
    found = compare(original, type(original)(run, record, fewer, {}))
    told = {one.what: one.now for one in found.different}
    assert told == {"package torch": "1.0", "processor": "an abacus", "computed with train.threads": "99"}
    assert (found.only_then, found.only_now, found.clips) == (["0"], ["new"], (N, N))
    assert not found.same_views
    assert found.scores["acc"] == (original.scores["acc"], None)
    alone = replace(own, clip_ids=["new"], cluster=own.cluster[:1])
    nothing = compare(original, type(original)(run, {**record, "settings": None}, alone, {}))
    assert (nothing.share, nothing.ari, nothing.identical) == (None, None, False)
    assert rerun_lines(asdict(nothing)) == ["rerun: NOT the same: no clip is in both"]


def test_run_json_alone_says_how_it_was_made(run):
    (run / "config.yaml").unlink()
    assert made_again(run).identical


def test_from_the_workdirs_embeddings_which_stay_as_they_are(of_clips, tmp_path, capsys):
    before = as_it_is(of_clips.work)
    found = made_again(of_clips.results, tmp_path / "again")
    assert found.identical
    assert found.same_encoders == {"visual": True, "text": True, "audio": True}
    said = capsys.readouterr().out
    assert f"extract: nothing to do: {N_CLIPS} clips" in said
    assert "reduce: visual" in said
    assert as_it_is(of_clips.work) == before


def test_features_agree_across_threads_and_batches_and_the_rerun_says_what_was_different(of_clips, tmp_path):
    run = shutil.copytree(of_clips.results, tmp_path / "run")
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["extract"] |= {"threads": 3, "decode_workers": 2, "chunk_size": 5}
    for modality in ("visual", "text", "audio"):
        config["extract"][modality]["batch_size"] = 100_000
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    found = made_again(run, clips=of_clips.corpus.root)
    then, now = embeddings(of_clips.work), embeddings(tmp_path / "run.rerun" / "work")
    for modality, vectors in then.items():
        assert len(vectors) == N_CLIPS
        for clip_id, vector in vectors.items():
            np.testing.assert_allclose(now[modality][clip_id], vector, rtol=0, atol=1e-4 * np.abs(vector).max())
    assert found.same_encoders == {"visual": True, "text": True, "audio": True}
    told = {one.what: (one.then, one.now) for one in found.different}
    assert told["setting extract.threads"] == ("1", "3")
    assert told["setting extract.text.batch_size"] == ("1", "100000")
    assert told["computed with visual.threads"] == ("1", "3")
    assert told["computed with audio.pass"][1].endswith("100000 log-mel frames a pass")


def test_without_the_clips_the_embeddings_are_taken_as_they_are(of_clips, tmp_path, capsys):
    base = of_clips.work.parent
    (base / "clips").rename(base / "elsewhere")
    try:
        assert made_again(of_clips.results, tmp_path / "again").identical
        assert "the clips are not at hand" in capsys.readouterr().out
        run = shutil.copytree(of_clips.results, tmp_path / "run")
        of_clips.work.rename(base / "gone")
        try:
            with pytest.raises(
                PipelineError, match=r"neither the embeddings of the run .* give the clips with --clips"
            ):
                made_again(run)
        finally:
            (base / "gone").rename(of_clips.work)
    finally:
        (base / "elsewhere").rename(base / "clips")


def test_labels_that_are_gone_cost_the_scores_alone(on_views, run, capsys):
    path = run / "config.yaml"
    path.write_text(path.read_text().replace("labels: null", "labels: gone.csv"))
    found = made_again(run)
    assert found.identical
    assert found.scores["acc"][1] is None
    assert "rerun: no scores, as the labels cannot be read" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda run: shutil.rmtree(run), r"no finished run in .*, which holds no run\.json"),
        (lambda run: (run / "run.json").write_text("{"), r"cannot read .*run\.json .* needed to make the run again"),
        (lambda run: (run / "run.json").write_text("[]"), r"cannot read .*run\.json \(.*object.*\)"),
        (lambda run: (run / "run.json").write_text("{}"), r"run\.json is not the record of a run"),
        (lambda run: (run / "assignments.csv").unlink(), r"no assignments\.csv in"),
        (lambda run: (run / "config.yaml").write_text("train: {seeed: 1}"), r"unknown setting 'train\.seeed'"),
        (lambda run: (run.with_name("run.rerun")).write_text(""), r"holds something that is no rerun"),
        (lambda run: (run.with_name("run.rerun")).mkdir() or (run.with_name("run.rerun") / "a").touch(), r"no rerun"),
    ],
)
def test_what_cannot_be_made_again_is_refused(spoil, message, run):
    spoil(run)
    with pytest.raises(PipelineError, match=message):
        made_again(run)


def test_more_that_is_refused(on_views, run, monkeypatch, capsys):
    with pytest.raises(PipelineError, match=r"is the run itself; give another folder"):
        rerun_folder(read_original(run), run)
    with pytest.raises(PipelineError, match=r"was trained on cached features, so there are no --clips to give"):
        made_again(run, clips=run)
    record = json.loads((run / "run.json").read_text())
    del record["settings"]
    (run / "run.json").write_text(json.dumps(record))
    config = (run / "config.yaml").read_text()
    (run / "config.yaml").unlink()
    with pytest.raises(PipelineError, match=r"has lost its config\.yaml"):
        made_again(run)
    (run / "config.yaml").write_text(config.replace(str(on_views.views), "nowhere"))
    said = call_main(monkeypatch, capsys, "rerun", run)
    assert said.code == 2
    assert "the features that the run clustered are not there any more: nowhere; a relative path is seen" in said.err
