"""`make bench-extract`: how fast clips become embeddings, as JSON and a table. Exit 1 where a target is missed.

In each round a part of the clips goes through the plain loop (plain_extraction.py), all of them through the stage
`extract`, and their prepared inputs, from memory, through the bare networks, pass after pass: one after the other, so
that what else the machine does slows all three. Ratios are of the rounds' medians. Then what all three modalities cost
together, memory, a run with nothing to do, and the same for the 24 clips of GRID where they lie beside the checkout.

Where the same cores read and compute, their CPU time says how near the stage can come to the bare networks if no core
ever rests: of_bare_at_most, over_bare_at_least. PyTorch's threads wait as they do by default, spinning, which suits
the plain loop and the bare networks; the command line lets them sleep, which costs the bare networks something and
the stage, whose passes go side by side, nothing.

make bench-extract                    64 clips, 3 rounds, a quarter of an hour on two cores
make bench-extract ARGS=--quick       16 clips, 1 round, the modalities alone: under 3 minutes
make bench-extract ARGS="--only text audio"
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.data import BESIDE, ROOT
from benchmarks.extract_again import second_run
from benchmarks.extract_clips import generated_clips, many_clips
from benchmarks.extract_memory import memory
from benchmarks.extract_openvino import openvino
from benchmarks.machine import machine
from benchmarks.plain_extraction import plain_audio, plain_bert, plain_davenet, plain_text, plain_vgg16, plain_visual
from extractors import registry
from extractors.base import Prepared
from extractors.clip import Clip
from extractors.preparing import prepare_clip
from extractors.text_bert import BASE_MODEL, local_tokenizer
from pipeline import hardware
from pipeline.config import ExtractSettings
from pipeline.console import Output, output
from pipeline.encoders import precision_for
from pipeline.engines.local import run_jobs
from pipeline.extract import open_job
from pipeline.ledger import Ledger
from pipeline.meters import Meter
from pipeline.readers import Readers

WORK = ROOT / "work" / "bench" / "extract"
PARTS = ("visual", "text", "audio", "together", "openvino", "memory", "again", "grid")
NAMES = {"visual": "visual/vgg16", "text": "text/bert", "audio": "audio/davenet"}
UNITS = {"visual": "frames/s", "text": "sentences/s", "audio": "times real time"}
SENTENCES = 512
GEMM_SIZE = {"cpu": 4096, "cuda": 8192}
# What was promised, in bf16 where the processor has it: times the plain loop, and the least cosine with it.
FASTER = {"visual": 2.2, "text": 7.0, "audio": 3.0}
TEXT_FP32_FASTER, TEXT_FP32_OFF = 4.0, 1e-5
LEAST_COSINE, OF_BARE, OF_GEMM, OVER_BARE = 0.9999, 0.95, 0.8, 1.05
OPENVINO_BF16, OPENVINO_INT8 = 2.6, 5.0
AGAIN_S, FIRST_S = 2.0, 1.0


@dataclass(slots=True)
class Case:
    """One modality: the same clips the plain way, by the stage, and from memory.

    Attributes:
        clips: what is measured on.
        slices: a round's share of the clips for the plain loop, which has fp32 vectors of them all in the end.
    """

    modality: str
    extractor: Any  # one of the NetworkExtractors
    plain: Callable[[Sequence[Clip]], Iterator[tuple[str, NDArray[np.float32]]]]
    clips: Sequence[Clip]
    slices: list[Sequence[Clip]]
    prepared: list[Prepared] = field(default_factory=list)

    def rate(self, seconds: float, clips: Sequence[Clip]) -> float:
        """Frames, sentences or seconds of sound a second."""
        by_id = {item.clip_id: item for item in self.prepared}
        units = {
            "visual": lambda item: len(item.inputs),
            "text": lambda item: 1,
            "audio": lambda item: item.n_units / 100,
        }
        return sum(units[self.modality](by_id[clip.clip_id]) for clip in clips) / seconds


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="make bench-extract", description=__doc__.splitlines()[0] if __doc__ else None
    )
    parser.add_argument("--quick", action="store_true", help="16 clips, 1 round, the modalities alone: under 3 minutes")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="parts to run")
    parser.add_argument("--rounds", type=int, help="default 3")
    arguments = parser.parse_args()
    quick = arguments.quick
    parts = [part for part in arguments.only if part in NAMES or not quick]
    if not parts:
        parser.error(f"--quick measures {', '.join(NAMES)} alone")
    rounds, n_clips = arguments.rounds or (1 if quick else 3), 16 if quick else 64
    torch.set_num_threads(hardware.threads_of("auto"))
    result: dict[str, Any] = {"date": datetime.now(UTC).isoformat(timespec="seconds"), "machine": machine()}
    result["precision"] = precision_for("auto", "auto")
    with redirect_stdout(sys.stderr), output(Output(quiet=True)):
        clips = generated_clips(WORK / f"clips_{n_clips}", n_clips)
        said = many_clips(WORK / "many", 2000)[: SENTENCES // 2 if quick else SENTENCES]
        extractors = {m: registry.create(NAMES[m], weights="random", precision=result["precision"]) for m in NAMES}
        for case in _cases({m: extractors[m] for m in NAMES if m in parts}, clips, said, rounds):
            result[case.modality] = compare(case, rounds)
        if "text" in parts and result["precision"] != "fp32":
            in_fp32: dict[str, Any] = {"text": registry.create(NAMES["text"], weights="random", precision="fp32")}
            (case,) = _cases(in_fp32, clips, said, rounds)
            result["text_fp32"] = compare(case, rounds)
        if "together" in parts:
            result["together"] = together(extractors, clips, rounds)
        if "grid" in parts and (BESIDE / "grid").is_dir():
            grid = [Clip(path.stem, str(path)) for path in sorted((BESIDE / "grid").rglob("*.mpg"))]
            for case in _cases({m: extractors[m] for m in NAMES if m != "text"}, grid, [], 1):
                result[f"grid_{case.modality}"] = compare(case, 1)
        if "openvino" in parts:
            result["openvino"] = openvino(clips[:16], rounds)
        if "memory" in parts:
            result["memory"] = memory(WORK)
        if "again" in parts:
            result["again"] = second_run()
    result["targets"] = targets(result)
    print(json.dumps(result, indent=1))
    _print_table(result)
    for name, target in result["targets"].items():
        told = f"{'met   ' if target['met'] else 'MISSED'} {name}: {target['is']} (wanted {target['wanted']})"
        print(told, file=sys.stderr)
    return 0 if all(target["met"] for target in result["targets"].values()) else 1


def _cases(extractors: Mapping[str, Any], clips: Sequence[Clip], said: Sequence[Clip], rounds: int) -> Iterator[Case]:
    for modality, extractor in extractors.items():
        over = said if modality == "text" else clips
        slices = [over[index::rounds] for index in range(rounds)]
        yield Case(modality, extractor, _plain(modality, extractor.network), over, slices)


def _plain(modality: str, network: Any) -> Callable[[Sequence[Clip]], Iterator[tuple[str, NDArray[np.float32]]]]:
    """The plain loop in fp32, with the weights that `random` draws: an extractor in bf16 has rounded its own."""
    rounded = any(p.dtype != torch.float32 for p in network.parameters())
    exact: Any = registry.create(NAMES[modality], weights="random", precision="fp32") if rounded else None
    state = (exact.network if exact else network).state_dict()
    if modality == "text":
        tokenizer, _ = local_tokenizer("random", BASE_MODEL, None)
        return partial(plain_text, tokenizer=tokenizer, network=plain_bert(network.config, state))
    if modality == "visual":
        return partial(plain_visual, network=plain_vgg16(state))
    return partial(plain_audio, network=plain_davenet(state))


def compare(case: Case, rounds: int) -> dict[str, Any]:
    """The plain loop, the stage and the bare encoder by turns."""
    modality, extractor = case.modality, case.extractor
    prepared, reading_s = _read({modality: extractor}, case.clips)
    case.prepared = prepared[modality]
    exact: dict[str, NDArray[np.float32]] = {}
    rates: dict[str, list[float]] = {"plain": [], "extract": [], "bare": [], "from_memory": []}
    computing_s: list[float] = []
    gemm: list[float] = []
    first: list[float] = []
    dict(case.plain(case.clips[:1]))  # what is made once
    for index in range(rounds):
        started = time.perf_counter()
        exact |= dict(case.plain(case.slices[index]))
        rates["plain"].append(case.rate(time.perf_counter() - started, case.slices[index]))
        seconds, first_s, ours = _stage({modality: extractor}, case.clips)
        rates["extract"].append(case.rate(seconds, case.clips))
        first.append(first_s)
        rates["bare"].append(case.rate(bare_seconds(extractor, case.prepared), case.clips))
        seconds, cpu_s = _from_memory(extractor, case.prepared)
        rates["from_memory"].append(case.rate(seconds, case.clips))
        computing_s.append(cpu_s)
        gemm.append(gemm_peak(extractor.precision, extractor.device))
    vectors = ours[modality]
    found = {
        "clips": len(case.clips),
        "precision": extractor.precision,
        "unit": UNITS[modality],
        **{name: round(median(values), 2) for name, values in rates.items()},
        "times_plain": round(median(rates["extract"]) / median(rates["plain"]), 2),
        "of_bare": round(median(rates["extract"]) / median(rates["bare"]), 3),
        "least_cosine": round(min(_cosine(vectors[name], exact[name]) for name in exact), 6),
        "largest_difference": float(f"{max(float(np.abs(vectors[n] - exact[n]).max()) for n in exact):.2g}"),
        "first_progress_s": round(median(first), 2),
        "gemm_gflops": round(median(gemm)),
    }
    if extractor.device.type == "cpu":
        spent = {"reading": reading_s, "computing": median(computing_s)}
        ideal = case.rate(sum(spent.values()) / torch.get_num_threads(), case.clips)
        found["cpu_ms_a_clip"] = {name: round(1e3 * seconds / len(case.clips), 1) for name, seconds in spent.items()}
        found["of_bare_at_most"] = round(ideal / median(rates["bare"]), 3)
    if modality == "visual":
        per_frame = flops(extractor.network, (1, 3, 224, 224)) / 1e9
        reached = median(rates["from_memory"]) * per_frame
        found |= {"gflop_a_frame": round(per_frame, 2), "of_gemm": round(reached / median(gemm), 3)}
    return found


def together(extractors: Mapping[str, Any], clips: Sequence[Clip], rounds: int) -> dict[str, Any]:
    """All three modalities of the same clips, by the stage, against the sum of the three bare encoders."""
    prepared, reading_s = _read(extractors, clips)
    wall: list[float] = []
    bare: dict[str, list[float]] = {m: [] for m in extractors}
    computing_s: dict[str, list[float]] = {m: [] for m in extractors}
    for _ in range(rounds):
        wall.append(_stage(extractors, clips)[0])
        for modality, extractor in extractors.items():
            bare[modality].append(bare_seconds(extractor, prepared[modality]))
            computing_s[modality].append(_from_memory(extractor, prepared[modality])[1])
    sums = {modality: round(median(seconds), 2) for modality, seconds in bare.items()}
    bare_s = sum(median(seconds) for seconds in bare.values())
    found = {"clips": len(clips), "seconds": round(median(wall), 2), "bare_seconds": sums}
    found["over_bare"] = round(median(wall) / bare_s, 3)
    if all(extractor.device.type == "cpu" for extractor in extractors.values()):
        cpu_s = reading_s + sum(median(seconds) for seconds in computing_s.values())
        found["over_bare_at_least"] = round(cpu_s / torch.get_num_threads() / bare_s, 3)
    return found


def _read(extractors: Mapping[str, Any], clips: Sequence[Clip]) -> tuple[dict[str, list[Any]], float]:
    """The clips prepared for each encoder, each file opened once, and the seconds of CPU that it took."""
    preparers = {modality: extractor.preparer for modality, extractor in extractors.items()}
    with threadpool_limits(1, "blas"):  # as in the processes that read for `extract`
        started = time.process_time()
        outcomes = [prepare_clip(clip, preparers) for clip in clips]
        seconds = time.process_time() - started
    return {modality: [outcome[modality] for outcome in outcomes] for modality in extractors}, seconds


def bare_seconds(extractor: Any, prepared: Sequence[Prepared]) -> float:
    """Of the network alone in the same precision, from memory: pass after pass, each with all of PyTorch's threads."""
    streams, extractor.max_streams = extractor.max_streams, 1
    seconds, _ = _from_memory(extractor, prepared)
    extractor.max_streams = streams
    return seconds


def _from_memory(extractor: Any, prepared: Sequence[Prepared]) -> tuple[float, float]:
    """Seconds of the network alone, and of CPU."""
    started, cpu_started = time.perf_counter(), time.process_time()
    extractor.encode(prepared)
    return time.perf_counter() - started, time.process_time() - cpu_started


def _stage(
    extractors: Mapping[str, Any], clips: Sequence[Clip]
) -> tuple[float, float, dict[str, dict[str, NDArray[np.float32]]]]:
    """Wall seconds of `extract` with its encoders loaded, seconds to the first clip that is told, the vectors."""
    first: list[float] = []
    advance = Meter.advance

    def noticed(meter: Meter, n_clips: int) -> None:
        first.append(time.perf_counter() - started)
        advance(meter, n_clips)

    with tempfile.TemporaryDirectory(dir=WORK) as folder:
        recipes = {
            m: {"dim": extractor.dim, "weights": extractor.weights_record} for m, extractor in extractors.items()
        }
        with (
            Ledger(lambda: clips, tuple(extractors)) as ledger,
            patch.object(Meter, "advance", noticed),
            Readers(ExtractSettings()) as readers,
        ):
            jobs = [open_job(Path(folder), m, e, recipes[m], "bench", ledger) for m, e in extractors.items()]
            readers.wait_until_ready()  # `extract` starts them before it loads the encoders
            started = time.perf_counter()
            run_jobs(jobs, ledger, ExtractSettings(), readers)
            seconds = time.perf_counter() - started
        failed = [failure for job in jobs for failure in job.store.failed.read().values()]
        if failed:
            raise RuntimeError(f"{len(failed)} clips failed, e.g. {failed[0]}")
        return seconds, first[0], {job.modality: job.store.read() for job in jobs}


def gemm_peak(precision: str, device: torch.device) -> float:
    """GFLOP/s of one large matrix product."""
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    size = GEMM_SIZE[device.type]
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    best = float("inf")
    with torch.inference_mode():
        for _ in range(4):
            started = time.perf_counter()
            (a @ b)[0, 0].item()  # a GPU is waited for
            best = min(best, time.perf_counter() - started)
    return 2 * size**3 / best / 1e9


def flops(network: nn.Module, shape: tuple[int, ...]) -> int:
    """Multiplications and additions of the convolutions and products of one pass."""
    one = next(network.parameters())
    with torch.no_grad(), FlopCounterMode(display=False) as counter:  # not inference mode, where layers are fused
        network(torch.zeros(shape, device=one.device, dtype=one.dtype))
    return int(counter.get_total_flops())


def targets(result: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """What was promised, for what was measured."""
    found: dict[str, dict[str, Any]] = {}

    def want(name: str, value: float, least: float | None = None, most: float | None = None) -> None:
        wanted = f">= {least}" if least is not None else f"<= {most}"
        met = value >= least if least is not None else value <= (most or 0.0)
        found[name] = {"is": value, "wanted": wanted, "met": met}

    for modality, times in FASTER.items():
        if (row := result.get(modality)) is None:
            continue
        if row["precision"] != "fp32":
            want(f"{modality}: times the plain loop", row["times_plain"], times)
        want(f"{modality}: least cosine with fp32", row["least_cosine"], LEAST_COSINE)
        want(f"{modality}: seconds to the first progress", row["first_progress_s"], most=FIRST_S)
    if "visual" in result:
        want("visual: of the bare model's rate", result["visual"]["of_bare"], OF_BARE)
        want("visual: of the matrix product's peak", result["visual"]["of_gemm"], OF_GEMM)
    row = result.get("text_fp32") or (result.get("text") if result["precision"] == "fp32" else None)
    if row:
        want("text in fp32: times the plain loop", row["times_plain"], TEXT_FP32_FASTER)
        want("text in fp32: largest difference", row["largest_difference"], most=TEXT_FP32_OFF)
    if "together" in result:
        want("together: wall over the bare encoders' sum", result["together"]["over_bare"], most=OVER_BARE)
    if "openvino" in result:
        times = result["openvino"]["visual/vgg16"]["times_plain"]
        want("openvino: VGG16 in bf16, times plain fp32", times["bf16"], OPENVINO_BF16)
        want("openvino: VGG16 in int8, times plain fp32", times["int8"], OPENVINO_INT8)
    if "memory" in result:
        want("memory: GB resident at most", result["memory"]["many_gb"], most=2.5)
        want("memory: GB more with many clips", result["memory"]["growth_gb"], most=0.1)
        want("memory: GB resident with a 2-hour file", result["memory"]["two_hours_gb"], most=2.5)
    if "again" in result:
        want("a second run over finished clips, seconds", result["again"]["seconds"], most=AGAIN_S)
    return found


def _print_table(result: Mapping[str, Any]) -> None:
    rows = {name: row for name, row in result.items() if isinstance(row, dict) and "times_plain" in row}
    heads = f"{'plain':>9} {'extract':>9} {'bare':>9} {'x plain':>8} {'of bare':>8} {'at most':>8}"
    print(f"{'':14} {heads}  unit", file=sys.stderr)
    for name, row in rows.items():
        rates = " ".join(f"{row[key]:9.1f}" for key in ("plain", "extract", "bare"))
        ratios = f"{row['times_plain']:8.2f} {row['of_bare']:8.3f} {row.get('of_bare_at_most', '-'):>8}"
        told = f"{rates} {ratios}  {row['unit']}, {row['precision']}"
        print(f"{name:14} {told}", file=sys.stderr)


def _cosine(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    x, y = a.astype(np.float64), b.astype(np.float64)
    return float(x @ y / np.sqrt((x @ x) * (y @ y)))


if __name__ == "__main__":
    sys.exit(main())
