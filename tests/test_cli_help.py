"""`--help` with every setting, hints where a word is mistyped, and what a shell completes."""

import functools
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from terminal import call_main, on_a_terminal, plain_environment

from pipeline.cli import options
from pipeline.cli.help import USES
from pipeline.cli.settings_help import Setting, all_settings, section_descriptions
from pipeline.config import Settings, setting_names
from pipeline.export import FORMATS
from pipeline.ingest import FORMATS as IMPORT_FORMATS

ROOT = Path(__file__).resolve().parents[1]
ON_CLIPS = ("prepare", "transcribe", "pretrain-audio", "extract")
STAGES = (*ON_CLIPS, "reduce", "train", "evaluate", "report", "predict", "run")
COMMANDS = (*ON_CLIPS, "compact", *STAGES[len(ON_CLIPS) :], "rerun", "status", "doctor", "export", "import")


@pytest.fixture
def command(monkeypatch, capsys):
    return functools.partial(call_main, monkeypatch, capsys)


def test_every_setting_is_there_with_what_the_models_say():
    rows = {setting.key: setting for setting in all_settings()}
    sections = set(section_descriptions())
    assert set(rows) | sections - {""} == set(setting_names(Settings))
    assert rows["reduce.dim"] == Setting(
        "reduce", "dim", "60", "integer >= 1 | null", "PCA to this many dims; null keeps all"
    )
    assert rows["extract.visual.precision"].values == "auto | fp32 | bf16 | fp16 | int8"
    assert rows["extract.visual.batch_size"].values == "auto | integer >= 1"
    assert rows["extract.text.max_tokens"].values == "integer 3 to 512"
    assert rows["extract.visual.fps"].values == "number > 0 | null"
    assert rows["train.neighbour_share"].values == "number 0 to 1"
    assert rows["train.seed"].values == "integer >= 0"  # its other limit is the machine's
    assert (rows["reduce.standardize"].default, rows["reduce.standardize"].values) == ("true", "true | false")
    assert (rows["train.divergence_weight"].default, rows["workdir"].default) == ("0.001", "null")
    assert rows["corpus.root"].values == "path | null"
    assert all(setting.description for setting in rows.values())


@pytest.mark.parametrize("stage", COMMANDS)
def test_help_shows_each_setting_of_the_stage_in_80_columns(command, stage):
    code, told, _ = command(stage, "--help")
    assert code == 0
    assert max(map(len, told.splitlines())) <= 80
    for option in ("--quiet", "--verbose", "--json"):
        assert option in told
    flat = re.sub(r"[\s│]+", " ", told)
    for setting in all_settings():
        used = any(setting.key == name or setting.key.startswith(f"{name}.") for name in USES.get(stage, ()))
        if used:
            assert f" {setting.name} {setting.default} {setting.description} " in f"{flat} ", setting.key


def test_the_stages_use_what_there_is():
    known = set(setting_names(Settings))
    assert set(USES) <= set(COMMANDS)
    assert {name for names in USES.values() for name in names} <= known
    assert "train.*" in USES or "train" in USES["train"]


def test_help_of_all_lists_every_command(command):
    code, told, _ = command("--help")
    assert code == 0
    for name in COMMANDS:
        assert re.search(rf"│ {name} ", told), name
    assert command("-h")[1] == told


def test_help_and_refusals_load_no_pytorch():
    code = (
        "import sys; sys.argv = ['pipeline/__main__.py', *sys.argv[1:]]\n"
        "from pipeline.cli import main\n"
        "try: main()\n"
        "except SystemExit: print({'torch', 'sklearn', 'pyarrow'} & set(sys.modules), file=sys.stderr)"
    )
    for words in (["train", "--help"], ["extarct"]):
        done = subprocess.run(
            [sys.executable, "-c", code, *words], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
        )
        assert done.stderr.splitlines()[-1] == "set()"


def test_help_has_colours_on_a_terminal_alone():
    code, seen = on_a_terminal("-m", "pipeline", "reduce", "--help")
    assert code == 0
    assert "\x1b[" in seen
    done = subprocess.run(
        [sys.executable, "-m", "pipeline", "reduce", "--help"],
        **{"cwd": ROOT, "env": plain_environment(), "capture_output": True, "text": True, "timeout": 60, "check": True},
    )
    assert "\x1b" not in done.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["extarct"], "error: no such stage 'extarct'; did you mean 'extract'?"),
        (["xyz"], f"error: no such stage 'xyz'; known: {', '.join(COMMANDS)}"),
        (["train", "--clutsers", "7"], "error: train has no option '--clutsers'; did you mean '--clusters'?"),
        (["reduce", "--clips", "x"], "error: reduce has no option '--clips'; known: --config, --set, --quiet, -q,"),
        (["train", "--seed", "one"], "error: Invalid value for '--seed': Input should be a valid integer"),
        (["predict", "--clips", "x"], "error: Missing option '--run'."),
        (["export", "--out", "x"], "error: Missing option '--format'."),
        (["reduce", "--quiet", "--verbose"], "error: --quiet and --verbose exclude each other; give one of them"),
        (["reduce", "--set", "reduce.dims=3"], "error: unknown setting 'reduce.dims'; did you mean 'reduce.dim'?"),
        (["train", "--objective", "tibb"], "unknown value 'tibb'; known: tib, reference (did you mean 'tib'?)"),
        ([], "error: no stage was given"),
    ],
)
def test_a_wrong_word_is_one_line_and_exit_code_2(command, words, message):
    code, _, err = command(*words)
    assert code == 2
    assert message in err
    assert len(err.splitlines()) == 1


def test_the_formats_are_those_of_export_and_import():
    assert set(options.FORMATS) == set(FORMATS)
    assert set(options.IMPORT_FORMATS) == set(IMPORT_FORMATS)


def completed(*words: str) -> list[str]:
    """What bash is told, the cursor after the last word."""
    code = "import sys; sys.argv = ['tib-pipeline']; from pipeline.cli import main; main()"
    asked = {"_TIB_PIPELINE_COMPLETE": "complete_bash", "COMP_WORDS": " ".join(["tib-pipeline", *words])}
    done = subprocess.run(
        [sys.executable, "-c", code],
        **{"cwd": ROOT, "env": {**os.environ, **asked, "COMP_CWORD": str(len(words))}},
        **{"capture_output": True, "text": True, "timeout": 60, "check": True},
    )
    return done.stdout.split()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["ex"], {"extract", "export"}),
        (["extract", "--on"], {"--only"}),
        (["extract", "--only", "v"], {"visual"}),
        (["train", "--set", "reduce."], {"reduce.dim=", "reduce.standardize=", "reduce.fit_clips=", "reduce.seed="}),
        (["train", "--config", "configs/m"], {f"configs/{name}.yaml" for name in ("meld", "mmsa", "mosi", "mosi60")}),
        (
            ["train", "--config", "confi"],
            {"configs/", *(f"configs/{path.name}" for path in (ROOT / "configs").iterdir())},
        ),
        (["export", "--format", "np"], {"npy", "npz"}),
        # With more than one to choose from a shell sets no space behind the `=`.
        (["train", "--set", "train.n_c"], {"train.n_clusters=", "train.n_clusters=null"}),
        (["train", "--set", "train.objective=re"], {"train.objective=reference"}),
        # bash parts a word at `=`, and asks for what stands behind it.
        (["train", "--set", "train.objective", "="], {"tib", "reference"}),
        (["train", "--set", "train.objective", "=", "re"], {"reference"}),
        (["train", "--set", "train.seed", "=", "1", "--set", "train.early_stop", "="], {"false", "true"}),
        (["train", "--set", "train.seed", "=", "1", "--ob"], {"--objective"}),
        (["train", "--set", "train.early_stop", "=", "true", "x"], set()),
    ],
)
def test_a_shell_completes_stages_options_and_settings(words, expected):
    assert set(completed(*words)) == expected


def test_the_completion_script_is_for_the_installed_command(command, monkeypatch):
    # Else it asks which shell it was started from, and tests that run in the background have none.
    monkeypatch.setenv("_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION", "1")
    code, script, _ = command("--show-completion", "bash")
    assert code == 0
    assert "complete -o default -F _tib_pipeline_completion tib-pipeline" in script
