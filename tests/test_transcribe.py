"""Stage transcribe, with tiny recognisers loaded as real ones are: words where the corpus has none, marked as made."""

import json
import shutil
import subprocess
import sys
from itertools import groupby
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from corpus_factory import SMALL_ENCODERS, WORDS, write_folder_corpus
from media_factory import write_clip
from report_factory import QUICK
from speech_factory import write_wav2vec2, write_whisper
from terminal import call_main
from transformers import AutoFeatureExtractor, AutoModelForCTC, AutoTokenizer, WhisperForConditionalGeneration

from extractors.errors import WeightsError, as_extraction_error
from extractors.media import MediaNeeds, read_media
from extractors.speech_recognition import SpeechRecogniser, model_folder, model_sha256
from pipeline import transcribe as module
from pipeline.config import load_settings
from pipeline.corpora.base import CorpusClip
from pipeline.errors import PipelineError
from pipeline.manifest import to_clip
from pipeline.prepare import manifest_of, prepare
from pipeline.transcribe import transcribe
from pipeline.transcripts import TRANSCRIPTS, Made, Newest, Transcripts, made_among, made_by, read_transcripts

pytestmark = pytest.mark.usefixtures("one_thread")
RATE_HZ = 16_000
FAILED = "transcripts/failures.csv"


@pytest.fixture(scope="module")
def whisper(tmp_path_factory):
    return write_whisper(tmp_path_factory.mktemp("models") / "tiny-whisper")


@pytest.fixture(scope="module")
def wav2vec2(tmp_path_factory):
    return write_wav2vec2(tmp_path_factory.mktemp("models") / "tiny-wav2vec2")


@pytest.fixture
def corpus(tmp_path):
    """Six clips: two with words, three without (one of them with an empty file of words), one without sound."""
    root = write_folder_corpus(tmp_path / "clips", 6)
    for i in (2, 3, 5):
        (root / f"clip_{i:02d}.txt").unlink()
    (root / "clip_04.txt").write_text(" ")
    write_clip(root / "clip_05.mp4", duration_s=0.4, fps=10, audio_codec=None)
    return root


@pytest.fixture
def settings(corpus, tmp_path, whisper):
    told = ("transcribe.device=cpu", "extract.decode_workers=1")
    settings = load_settings(None, told, workdir=tmp_path / "w", corpus__root=corpus, transcribe__model=str(whisper))
    prepare(settings)
    return settings


def run(settings, **options):
    return transcribe(settings, *manifest_of(settings), **options)


def noise(n_samples, seed=0):
    return (0.1 * np.random.default_rng(seed).normal(size=n_samples)).astype(np.float32)


def transcripts_of(settings):
    """clip_id -> its last transcript."""
    return {one.clip_id: one for one in read_transcripts(settings.work / TRANSCRIPTS)}


def failures_of(settings):
    return (settings.work / FAILED).read_text()


def texts(settings):
    return {clip.clip_id: clip.transcript for clip in manifest_of(settings)[0]}


def by_hand(folder, samples):
    """What the tiny Whisper says of at most a second, without the pipeline."""
    features = AutoFeatureExtractor.from_pretrained(folder)(samples, sampling_rate=RATE_HZ, return_tensors="pt")
    ids = WhisperForConditionalGeneration.from_pretrained(folder).generate(features.input_features)
    return " ".join(AutoTokenizer.from_pretrained(folder).decode(ids[0], skip_special_tokens=True).split())


# --- the recogniser ---


def test_whisper_says_what_it_says_without_the_pipeline(whisper):
    sounds = [noise(RATE_HZ), noise(5_000, seed=1), noise(800, seed=2)]
    said = SpeechRecogniser(whisper, device="cpu").transcribe(sounds)
    assert said == [by_hand(whisper, sound) for sound in sounds]
    assert len(set(said)) > 1


def test_a_ctc_model_says_its_likeliest_letters(wav2vec2):
    model, features = AutoModelForCTC.from_pretrained(wav2vec2), AutoFeatureExtractor.from_pretrained(wav2vec2)
    letters = ["", "<unk>", " ", *"abcdef"]  # the first is CTC's blank
    sounds = [noise(RATE_HZ), noise(5_000, seed=1)]
    expected = []
    for sound in sounds:
        with torch.inference_mode():
            logits = model(**features(sound, sampling_rate=RATE_HZ, return_tensors="pt")).logits[0]
        text = "".join(letters[i] for i, _ in groupby(logits.argmax(dim=-1).tolist()))
        expected.append(" ".join(text.split()))
    assert [len(text) > 3 for text in expected] == [True, True]
    assert SpeechRecogniser(wav2vec2, device="cpu", batch_size=1).transcribe(sounds) == expected


def test_long_sound_is_cut_into_pieces_that_the_model_can_take(whisper):
    recogniser = SpeechRecogniser(whisper, device="cpu")  # its window is a second, not the 30 that are asked for
    assert len(recogniser.transcribe([noise(4 * RATE_HZ)])[0]) > len(recogniser.transcribe([noise(RATE_HZ)])[0])


def test_the_language_is_told_to_whisper_alone(whisper, wav2vec2):
    sounds = [noise(RATE_HZ, seed=seed) for seed in range(3)]
    german, english = (SpeechRecogniser(whisper, device="cpu", language=one) for one in ("de", "english"))
    assert german.transcribe(sounds) != english.transcribe(sounds)
    for folder, language, why in ((whisper, "xx", "Unsupported language: xx"), (wav2vec2, "de", "only Whisper is")):
        with pytest.raises(WeightsError, match=rf"cannot transcribe with this model in language '{language}' .*{why}"):
            SpeechRecogniser(folder, device="cpu", language=language)


def test_another_kind_of_model_or_a_damaged_one_is_refused(whisper, tmp_path):
    damaged = shutil.copytree(whisper, tmp_path / "damaged")
    (damaged / "model.safetensors").write_bytes(b"\0" * 100)
    other = shutil.copytree(whisper, tmp_path / "other")
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**config, "model_type": "bert", "architectures": ["BertModel"]}))
    for folder in (damaged, other):
        with pytest.raises(WeightsError, match=r"cannot transcribe with this model .* point transcribe\.model at one"):
            SpeechRecogniser(folder, device="cpu")


def test_a_folder_without_a_model_and_a_model_that_cannot_be_downloaded(tmp_path, monkeypatch):
    with pytest.raises(WeightsError, match=r"no speech recogniser in .*: expected config\.json, model\.safetensors"):
        model_folder(str(tmp_path))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    for name in ("nobody/has-this-model", "no such/name at all"):
        with pytest.raises(WeightsError, match=rf"cannot download {name} from https://huggingface\.co/{name} \(\w+: "):
            model_folder(name)


def test_weights_in_several_files_have_one_checksum(whisper, tmp_path):
    folder = shutil.copytree(whisper, tmp_path / "sharded")
    alone = model_sha256(folder)
    (folder / "model-00002-of-00002.safetensors").write_bytes(b"more")
    assert model_sha256(folder) != alone == model_sha256(whisper)


# --- the stage ---


def test_clips_without_words_get_some_and_the_corpus_stays_as_it_is(settings, corpus, whisper, capsys):
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in corpus.iterdir()}
    assert run(settings) == 1  # the one without sound
    assert {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in corpus.iterdir()} == before
    made = transcripts_of(settings)
    assert set(made) == {"clip_02", "clip_03", "clip_04"}
    clips, root = manifest_of(settings)
    for clip in clips:
        if clip.clip_id in made:
            sound = read_media(to_clip(clip, root), MediaNeeds(sample_rate_hz=RATE_HZ)).require_waveform()
            assert clip.transcript == made[clip.clip_id].text == by_hand(whisper, sound.samples)
            assert clip.transcribed_by == f"tiny-whisper (sha256 {model_sha256(whisper)[:12]})"
        else:
            assert clip.transcribed_by is None
    assert texts(settings)["clip_00"] == f"{WORDS[0]} 0"
    assert "clip_05,read,no_audio_stream," in failures_of(settings)
    said = capsys.readouterr().out
    assert "transcribe: 3 transcripts made by a model, nobody has checked them" in said
    assert "transcribe: 1 clips failed" in said


def test_nothing_is_done_twice_and_prepare_keeps_what_was_made(settings, capsys):
    run(settings)
    before = (settings.work / "manifest.jsonl").read_bytes()
    capsys.readouterr()
    assert run(settings) == 1
    assert "transcribe: nothing to do: 4 clips accounted for" in capsys.readouterr().out
    prepare(settings)
    assert (settings.work / "manifest.jsonl").read_bytes() == before
    assert "prepare: 3 clips without words have a transcript made by tiny-whisper (sha256 " in capsys.readouterr().out


def test_a_run_that_breaks_off_keeps_what_is_done(settings, monkeypatch):
    monkeypatch.setattr(module, "CLIPS_AT_ONCE", 1)
    whole, done = SpeechRecogniser.transcribe, []

    def stopped(self, sounds):
        if len(done) == 3:  # the first is the trial when it was loaded
            raise KeyboardInterrupt
        done.append(sounds)
        return whole(self, sounds)

    with monkeypatch.context() as patch:
        patch.setattr(SpeechRecogniser, "transcribe", stopped)
        with pytest.raises(KeyboardInterrupt):
            run(settings)
    first = transcripts_of(settings)
    assert set(first) == {"clip_02", "clip_03"}
    run(settings)
    assert set(transcripts_of(settings)) == {"clip_02", "clip_03", "clip_04"}


def test_one_clip_that_breaks_the_model_costs_no_other(settings, monkeypatch):
    whole = SpeechRecogniser.transcribe

    def breaks(self, sounds):
        if len(sounds) > 1 or len(sounds[0]) < RATE_HZ // 3:
            raise RuntimeError("too much for it")
        return whole(self, sounds)

    root = settings.corpus.root
    write_clip(root / "clip_03.mp4", duration_s=0.2, fps=10)
    monkeypatch.setattr(SpeechRecogniser, "transcribe", breaks)
    assert run(settings) == 2
    assert set(transcripts_of(settings)) == {"clip_02", "clip_04"}
    assert "clip_03,encode,unexpected,RuntimeError: too much for it," in failures_of(settings)
    monkeypatch.undo()
    assert run(settings) == 2  # they are not tried again by themselves
    assert run(settings, retry_failed=True) == 1
    assert set(transcripts_of(settings)) == {"clip_02", "clip_03", "clip_04"}


def test_a_clip_that_changed_is_done_again_and_its_old_words_are_not_used(settings, capsys):
    run(settings)
    before = transcripts_of(settings)
    write_clip(settings.corpus.root / "clip_02.mp4", duration_s=1.0, fps=10, tones_hz=(3000.0,))
    capsys.readouterr()
    prepare(settings)
    assert "prepare: 1 transcripts are of sound that has changed since" in capsys.readouterr().out
    assert not texts(settings)["clip_02"]
    run(settings)
    after = transcripts_of(settings)
    assert after["clip_02"].source != before["clip_02"].source
    assert texts(settings)["clip_02"] == after["clip_02"].text
    assert after["clip_03"] == before["clip_03"]


def test_another_model_or_language_makes_them_anew(settings, wav2vec2):
    run(settings)
    for other in ({"model": str(wav2vec2)}, {"language": "de"}):
        changed = settings.model_copy(update={"transcribe": settings.transcribe.model_copy(update=other)})
        run(changed)
        (model,) = made_by(manifest_of(settings)[0])
        assert model.startswith("tiny-wav2vec2 (sha256 ") if "model" in other else model.endswith(", de)")


def test_all_clips_where_asked_and_the_corpus_own_words_stay(settings):
    own = {clip_id: text for clip_id, text in texts(settings).items() if (text or "").strip()}
    assert run(settings, every_clip=True) == 1
    assert set(transcripts_of(settings)) == {f"clip_{i:02d}" for i in range(5)}
    assert own.items() <= texts(settings).items()


def test_silence_is_no_words(settings, monkeypatch, capsys):
    monkeypatch.setattr(SpeechRecogniser, "transcribe", lambda self, sounds: [""] * len(sounds))
    run(settings)
    assert "3 transcripts made by a model, 3 of them without a word" in capsys.readouterr().out
    assert not made_by(manifest_of(settings)[0])
    run(settings)
    assert "nothing to do: 4 clips" in capsys.readouterr().out


@pytest.mark.parametrize("line", ["{", "[]", '{"clip_id": "a", "text": "b", "model": "c"}', "[" * 100_000])
def test_a_broken_line_is_named(settings, line):
    run(settings)
    path = settings.work / TRANSCRIPTS
    path.write_text(path.read_text() + line + "\n")
    for stage in (prepare, run):
        with pytest.raises(PipelineError, match=r"transcripts\.jsonl:4: not a transcript: .* run `transcribe` again"):
            stage(settings)


def test_what_a_killed_write_left_is_passed_over_and_cut_off(settings, capsys):
    run(settings)
    path, whole = settings.work / TRANSCRIPTS, transcripts_of(settings)
    lines = path.read_text()
    path.write_text(lines + '{"clip_id": "clip_02", "te')
    prepare(settings)
    assert transcripts_of(settings) == whole
    capsys.readouterr()
    run(settings)
    assert 'ended in the midst of a line, which is left out: b\'{"clip_id": "clip_02", "te\'' in capsys.readouterr().out
    assert path.read_text() == lines
    path.write_text(lines.rstrip("\n"))  # whole, but for its end
    run(settings)
    assert path.read_text() == lines
    assert "midst" not in capsys.readouterr().out


def test_a_clip_whose_file_is_gone_keeps_its_words(settings, capsys):
    run(settings)
    words = texts(settings)
    settings.corpus.root.rename(settings.corpus.root.with_name("away"))
    capsys.readouterr()
    assert run(settings) == 1  # the one that failed before is missing now
    assert texts(settings) == words
    assert "has changed" not in capsys.readouterr().out


def test_a_clip_that_another_model_fails_on_keeps_the_words_of_the_one_before(settings, wav2vec2, monkeypatch):
    run(settings)
    section = settings.transcribe.model_copy(update={"model": str(wav2vec2)})
    monkeypatch.setattr(module, "_load", lambda folder, settings: SimpleNamespace(sample_rate_hz=RATE_HZ))
    failed = as_extraction_error("encode", ValueError("no"))
    monkeypatch.setattr(module, "_said", lambda recogniser, sounds: [failed] * len(sounds))
    assert run(settings.model_copy(update={"transcribe": section})) == 4
    (model,) = made_by(manifest_of(settings)[0])
    assert model.startswith("tiny-whisper")


def test_models_are_counted_in_whatever_order_the_clips_come():
    clips = [
        CorpusClip(i, f"{i}.mp4", transcript="x", transcribed_by=model) for i, model in zip("abcd", "mnm-", strict=True)
    ]
    clips[3] = CorpusClip("d", "d.mp4", transcript="x")
    assert made_among(clips, ["d", "z", "c", "b"]) == {"m": 1, "n": 1}
    assert made_among(clips, []) == {}
    assert made_among(clips, "cba") == {"m": 2, "n": 1}


def test_transcripts_are_appended_and_the_last_of_a_clip_counts(tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.arrow.BATCH", 2)  # several streams' batches
    old, new = Transcripts(tmp_path, "old"), Transcripts(tmp_path, "new")
    old.append(Made(f"c{i}", f'"old" {i} \u2028\n', "old", f"s{i}") for i in range(5))
    new.append([Made("c3", "new", "new", "s3"), Made("c1", "", "new", "s1")])
    new.append([])
    assert [row for batch in new.iter_done() for row in batch.to_pylist()] == [
        {"place": 5, "clip_id": "c3", "source": "s3"},
        {"place": 6, "clip_id": "c1", "source": "s1"},
    ]
    with Newest(tmp_path / TRANSCRIPTS) as newest:
        clips = [SimpleNamespace(clip_id=f"c{i}") for i in (9, 3, 1, 0)]
        found = [(clip.clip_id, made and made.text) for clip, made in newest.of(clips)]
        assert found == [("c9", None), ("c3", "new"), ("c1", ""), ("c0", '"old" 0 \u2028\n')]
        newest.tidy()
    assert [one.clip_id for one in read_transcripts(tmp_path / TRANSCRIPTS)] == ["c0", "c2", "c4", "c3", "c1"]
    before = (tmp_path / TRANSCRIPTS).stat().st_mtime_ns
    with Newest(tmp_path / TRANSCRIPTS) as newest:
        newest.tidy()
    assert (tmp_path / TRANSCRIPTS).stat().st_mtime_ns == before


def test_a_disk_that_is_full_cuts_no_line_in_two(tmp_path):
    store = Transcripts(tmp_path, "m")
    store.append([Made("a", "x", "m", "s")])
    whole = store.path.read_bytes()
    code = f"""
import resource
from pathlib import Path
from pipeline.transcripts import Made, Transcripts
resource.setrlimit(resource.RLIMIT_FSIZE, ({len(whole) + 100}, {len(whole) + 100}))
Transcripts(Path({str(tmp_path)!r}), "m").append([Made(f"b{{i}}", "y" * 99, "m", "s") for i in range(20)])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert "transcripts.jsonl: File too large; free some space, and run again" in done.stderr
    assert store.path.read_bytes() == whole


def test_failures_that_cannot_be_read_are_refused(settings):
    (settings.work / FAILED).parent.mkdir()
    (settings.work / FAILED).write_text("clip_id,what\na,b\n")
    with pytest.raises(PipelineError, match=r"cannot read .*transcripts/failures\.csv .*; delete it"):
        run(settings)


def test_a_model_that_cannot_be_had_stops_the_command(settings, whisper, tmp_path):
    def with_model(folder, **other):
        section = settings.transcribe.model_copy(update={"model": str(folder), **other})
        return settings.model_copy(update={"transcribe": section})

    with pytest.raises(PipelineError, match="no speech recogniser in"):
        run(with_model(tmp_path))
    with pytest.raises(PipelineError, match="cannot transcribe with this model in language 'xx'"):
        run(with_model(whisper, language="xx"))
    if not torch.cuda.is_available():
        with pytest.raises(PipelineError, match="transcribe: device 'cuda' was asked for"):
            run(with_model(whisper, device="cuda"))


def test_the_run_and_its_page_say_whose_words_they_are(corpus, tmp_path, whisper, monkeypatch, capsys):
    work = tmp_path / "w"
    sets = [*SMALL_ENCODERS, *QUICK, f"workdir={work}", "name=test", "train.n_clusters=2", "extract.visual=null"]
    words = [word for one in [s for s in sets if "extract.visual." not in s] for word in ("--set", one)]
    said = call_main(monkeypatch, capsys, "transcribe", "--clips", corpus, "--model", whisper, *words, "--json")
    assert said.code == 1
    values = json.loads(said.out)
    assert (values["clips"], values["failed"], list(values["made"].values())) == (6, 1, [3])
    said = call_main(monkeypatch, capsys, "run", "--clips", corpus, *words)
    assert said.code == 1, said.err
    record = json.loads((work / "results/test/run.json").read_text())
    assert list(record["transcripts_made"].values()) == [3]
    page = (work / "results/test/report.html").read_text()
    assert "The words of 3 of 5 clips were made by tiny-whisper (sha256 " in page
