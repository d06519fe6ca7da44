"""A file under a second name: a link where the disk knows links, a copy where not, and never half a file."""

import errno
import os

import pytest

from pipeline.errors import PipelineError
from pipeline.files import link_or_copy


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "weights"
    path.write_bytes(b"many tensors")
    return path


def test_it_is_a_second_name(source, tmp_path):
    target = tmp_path / "run" / "kept"
    link_or_copy(source, target)
    link_or_copy(source, target)  # as it is already
    assert target.samefile(source)
    (tmp_path / "other").write_bytes(b"another run's")
    link_or_copy(tmp_path / "other", target)
    assert target.read_bytes() == b"another run's"
    assert source.read_bytes() == b"many tensors"


def test_it_is_a_copy_where_there_are_no_links(source, tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", refuse)
    link_or_copy(source, tmp_path / "kept")
    assert (tmp_path / "kept").read_bytes() == b"many tensors"
    assert not (tmp_path / "kept").samefile(source)


def test_what_cannot_be_written_is_said_and_leaves_nothing(source, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(PipelineError, match="cannot write .*kept: No space left on device; free some space"):
        link_or_copy(source, tmp_path / "kept")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["weights"]
