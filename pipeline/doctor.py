"""Whether this machine can run the stages with the settings at hand; for each thing missing, what to do.

Nothing is downloaded and nothing is left behind. The network is not tried: weights of a hub that are not in its cache
are told, and fetched when `extract` wants them.
"""

import importlib
import importlib.metadata
import importlib.util
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import Requirement

from pipeline import hardware
from pipeline.config import EncoderSettings, Settings
from pipeline.encoders import build
from pipeline.errors import PipelineError

OK, NOTE, WARNING, PROBLEM = "ok", "note", "warning", "problem"
DISTRIBUTION = "tib-pipeline"
LOCK = Path(__file__).resolve().parents[1] / "requirements.lock"
NATIVE = ("torch", "torchvision", "torchaudio", "av", "cv2", "pyarrow", "sklearn")  # libraries that can fail to load
DECODERS_NEEDED = ("h264", "aac")
DECODERS = ("hevc", "av1", "vp8", "vp9", "mpeg4", "mpeg1video", "mp2", "mp3", "opus", "vorbis", "flac")
OPTIONAL = {
    "umap": ("umap-learn", "a UMAP of the clips in the report"),
    "csd": ("h5py", "import of .csd files"),
    "tensorboard": ("tensorboard", "train.tensorboard=true"),
    "openvino": ("openvino", "extract.visual.runtime=openvino"),
    "nncf": ("nncf", "extract.visual.precision=int8"),
}
AGAIN = "touch requirements.lock, then make setup"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FREE_GB, MEMORY_GB = 2.0, 4.0  # below them it may become too little


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at.

    Attributes:
        state: "ok"; "note": nothing to worry about; "warning": every stage can run, but look at it; "problem": a stage
            cannot run.
        found: what there is.
        todo: what to do about it; "" where nothing.
    """

    name: str
    state: str
    found: str
    todo: str = ""


def doctor(settings: Settings) -> Iterator[Check]:
    """Looks at one thing after the other; takes as long as loading PyTorch and the encoders does."""
    for look in CHECKS:
        yield from look(settings)


def _python(settings: Settings) -> Iterator[Check]:
    found = f"{platform.python_version()} ({sys.executable})"
    wanted = importlib.metadata.metadata(DISTRIBUTION)["Requires-Python"] if _version(DISTRIBUTION) else None
    if wanted is None:
        yield Check("Python", PROBLEM, f"{found}; {DISTRIBUTION} is not installed in it", "make setup")
    elif platform.python_version() not in Requirement(f"python{wanted}").specifier:
        yield Check("Python", PROBLEM, f"{found}, expected {wanted}", "make setup PYTHON=python3.11, or a newer one")
    else:
        yield Check("Python", OK, found)


def _packages(settings: Settings) -> Iterator[Check]:
    asked = [Requirement(text) for text in (importlib.metadata.requires(DISTRIBUTION) or []) if _version(DISTRIBUTION)]
    needed = [r for r in asked if r.marker is None or r.marker.evaluate({"extra": ""})]
    wrong = [f"{r.name} {_version(r.name) or 'is missing'} ({r.specifier})" for r in needed if not _fits(r)]
    if wrong:
        yield Check("packages", PROBLEM, f"not as pyproject.toml asks: {', '.join(wrong)}", AGAIN)
    else:
        yield Check("packages", OK, f"{len(needed)} of {len(needed)} as pyproject.toml asks")
    other = [f"{pin.name} {_version(pin.name)} ({pin.specifier})" for pin in _pins() if not _fits(pin)]
    if other:
        told = f"{', '.join(other[:5])}{f' and {len(other) - 5} more' if len(other) > 5 else ''}"
        yield Check("lock", WARNING, f"other versions than requirements.lock: {told}", AGAIN)
    for package, use in OPTIONAL.values():
        if not _version(package):
            yield Check(package, NOTE, f"not installed; for {use}", f".venv/bin/uv pip install {package}")


def _pins() -> list[Requirement]:
    """What requirements.lock pins, of the packages that are installed; nothing where there is no checkout."""
    lines = LOCK.read_text(encoding="utf-8").splitlines() if LOCK.exists() else []
    pins = [Requirement(line.rstrip("\\ ")) for line in lines if line[:1].isalnum()]
    return [pin for pin in pins if (pin.marker is None or pin.marker.evaluate()) and _version(pin.name)]


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _fits(requirement: Requirement) -> bool:
    version = _version(requirement.name)
    return version is not None and requirement.specifier.contains(version, prereleases=True)


def _libraries(settings: Settings) -> Iterator[Check]:
    broken = False
    for name in NATIVE:
        try:
            importlib.import_module(name)
        except Exception as error:  # a wheel for another machine, a PyTorch beside which torchvision was not built
            told = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
            yield Check(name, PROBLEM, f"does not load ({told})", "rm -r .venv, then make setup")
            broken = True
    if not broken:
        yield Check("libraries", OK, f"{', '.join(NATIVE)} load")


def _processor(settings: Settings) -> Iterator[Check]:
    cpuinfo = hardware.read_cpuinfo()
    flags = hardware.cpu_flags(cpuinfo)
    vectors = [name for flag, name in hardware.VECTORS.items() if flag in flags][:1]
    bf16 = [name for flag, name in hardware.BF16.items() if flag in flags][:1]
    precision = f"bf16 by {bf16[0]}: precision fp32 or bf16" if bf16 else "no bf16 of its own: precision fp32"
    found = f"{hardware.cpu_model(cpuinfo)}: {', '.join([*vectors, precision])}"
    asked = [m for m in settings.extract.modalities() if _section(settings, m).precision == "bf16"]
    if asked and flags and not bf16 and not _has_cuda():
        todo = " ".join(f"--set extract.{m}.precision=fp32" for m in asked)
        yield Check("processor", WARNING, f"{found}; the settings ask for bf16, which is emulated slowly", todo)
    else:
        yield Check("processor", OK, found)


def _memory(settings: Settings) -> Iterator[Check]:
    cores, memory = hardware.usable_cores(), hardware.memory_gb()
    found = f"{cores:g} cores" + (f", {memory[0]:.1f} GB memory, {memory[1]:.1f} GB of it free" if memory else "")
    if memory and memory[1] < MEMORY_GB:
        todo = "end other programs, or --set extract.visual.batch_size=2 and extract.decode_workers=1"
        yield Check("memory", WARNING, f"{found}; {MEMORY_GB:g} GB is what all three encoders want", todo)
    else:
        yield Check("memory", OK, found)


def _gpu(settings: Settings) -> Iterator[Check]:
    if _has_cuda():
        import torch

        for index in range(torch.cuda.device_count()):
            card = torch.cuda.get_device_properties(index)
            yield Check("GPU", OK, f"{card.name}, {card.total_memory / 1e9:.0f} GB, CUDA {torch.version.cuda}")
        return
    asked = [f"extract.{m}" for m in settings.extract.modalities() if _section(settings, m).device == "cuda"]
    asked += ["train"] if settings.train.device.startswith("cuda") else []
    if asked:
        todo = " ".join(f"--set {section}.device=auto" for section in asked)
        yield Check("GPU", PROBLEM, f"none that PyTorch sees, but {', '.join(asked)} asks for cuda", todo)
    elif shutil.which("nvidia-smi"):
        todo = (
            "install a driver that fits the CUDA version of this PyTorch: .venv/bin/python -m torch.utils.collect_env"
        )
        yield Check("GPU", WARNING, "nvidia-smi is here, but PyTorch sees no device", todo)
    else:
        yield Check("GPU", NOTE, "none; everything runs on the processor")


def _section(settings: Settings, modality: str) -> EncoderSettings:
    section: EncoderSettings = getattr(settings.extract, modality)
    return section


def _has_cuda() -> bool:
    try:
        import torch
    except Exception:  # told by _libraries
        return False
    return torch.cuda.is_available()


def _folders(settings: Settings) -> Iterator[Check]:
    for name, folder in (("workdir", settings.work), ("results", settings.results)):
        above = next(path for path in (folder, *folder.absolute().parents) if path.exists())
        try:
            with tempfile.TemporaryFile(dir=above):
                pass
        except OSError as error:
            reason = error.strerror or str(error)
            setting = "out" if name == "results" else "workdir"
            yield Check(name, PROBLEM, f"cannot write in {above}: {reason}", f"--set {setting}=DIR, a folder of yours")
            continue
        free_gb = shutil.disk_usage(above).free / 1e9
        state, todo = (OK, "") if free_gb >= FREE_GB else (WARNING, "free some space")
        yield Check(name, state, f"{folder}: may be written, {free_gb:.1f} GB free", todo)


def _decoders(settings: Settings) -> Iterator[Check]:
    try:
        from av.codec import Codec, codecs_available
    except Exception:
        return  # told by _libraries

    def lacks(name: str) -> bool:
        return name not in codecs_available or not Codec(name, "r").is_decoder

    missing, others = [n for n in DECODERS_NEEDED if lacks(n)], [n for n in DECODERS if lacks(n)]
    if missing:
        yield Check(
            "FFmpeg", PROBLEM, f"PyAV has no decoder for {', '.join(missing)}", "make setup: PyPI's own wheel has"
        )
    elif others:
        yield Check("FFmpeg", NOTE, f"in PyAV: {', '.join(DECODERS_NEEDED)}, but not {', '.join(others)}")
    else:
        yield Check("FFmpeg", OK, f"in PyAV: {', '.join((*DECODERS_NEEDED, *DECODERS))}")


def _weights(settings: Settings) -> Iterator[Check]:
    """Loads each encoder as `extract` would, without the network."""
    for modality in settings.extract.modalities() if not settings.views else ():
        section = getattr(settings.extract, modality)
        name, told = f"{modality} weights", f"{section.backbone}, {section.weights}"
        if modality == "audio" and settings.uses_own_audio and not settings.own_audio_is_trained:
            yield Check(name, OK, f"{told}: not there yet; `extract` and `run` train it on the clips first")
            continue
        if modality == "visual" and settings.uses_own_int8 and not settings.own_int8.is_file():
            section = section.model_copy(update={"precision": "fp32"})  # what `extract` makes the int8 network from
        try:
            with offline():
                record = build(modality, section).weights_record
        except PipelineError as error:
            if "cannot download" in str(error):
                todo = f"nothing, if this machine may fetch them; else {str(error).partition('; ')[2]}"
                yield Check(
                    name, WARNING, f"{told}: not in the cache; the first extract fetches them (not tried)", todo
                )
            else:
                yield Check(name, PROBLEM, f"{told}: {error}", f"or leave it out: --set extract.{modality}=null")
            continue
        if record["source"] == "none":
            yield Check(name, OK, f"{record['preprocessing']}: it needs none")
        elif record.get("trained", True):
            yield Check(name, OK, f"{told}: SHA-256 {record['sha256'][:12]}..., licence {record['licence']}")
        else:
            yield Check(name, NOTE, f"{told}: RANDOM, so its embeddings are untrained, as every output will say")


@contextmanager
def offline() -> Iterator[None]:
    """Lets nothing be downloaded: Hugging Face's hub is told so, and every other way leads to a closed port."""
    closed = {"HF_HUB_OFFLINE": "1", "no_proxy": "", "NO_PROXY": ""}
    closed |= dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")
    before = {name: os.environ.get(name) for name in closed}
    os.environ.update(closed)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _corpus(settings: Settings) -> Iterator[Check]:
    root = settings.views or settings.corpus.root
    if root is None:
        yield Check("clips", NOTE, "no folder of clips is given", "CLIPS=DIR, or --clips DIR")
    elif root.is_dir():
        yield Check("clips", OK, str(root))
    elif settings.corpus.kind == "synthetic" and not settings.views:
        yield Check("clips", OK, f"{root}: drawn when `prepare` runs")
    else:
        setting = "views" if settings.views else "corpus.root"
        yield Check("clips", PROBLEM, f"no folder {root}", f"--set {setting}=DIR")


def _browser(settings: Settings) -> Iterator[Check]:
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found and _version("playwright"):
        yield Check("browser", OK, f"{found}, for `make test-browser`")
    else:
        what = "no Chromium" if not found else "no playwright"
        yield Check("browser", NOTE, f"{what}; only the report's own tests want it", "make test-browser")


def _network(settings: Settings) -> Iterator[Check]:
    yield Check("network", NOTE, "not tried")


CHECKS: tuple[Callable[[Settings], Iterator[Check]], ...] = (
    *(_python, _packages, _libraries, _processor, _memory, _gpu, _folders, _decoders, _corpus, _weights),
    *(_browser, _network),
)
