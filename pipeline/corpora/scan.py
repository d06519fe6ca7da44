"""One walk over a corpus folder: its files, and what in it is refused."""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.corpora.base import Corpus, Problem
from pipeline.errors import PipelineError

MEDIA_SUFFIXES = (
    ".mp4",
    ".m4v",
    ".avi",
    ".mov",
    ".mkv",
    ".webm",
    ".mpg",
    ".mpeg",
    ".flv",
    ".wmv",
    ".3gp",
)
AUDIO_SUFFIXES = (".wav", ".flac", ".mp3", ".ogg", ".opus", ".m4a", ".aiff")
_NAMES_SHOWN = 8
_LFS_POINTER = b"version https://git-lfs.github.com/spec/"
_LFS_POINTER_BYTES = 1024  # a pointer is smaller


@dataclass(slots=True)
class Tree:
    """What a walk found.

    Attributes:
        files: every file's path relative to the corpus root, with forward slashes, sorted.
        refused: file -> why it is left out though it is there.
        folders: the folders that were not entered though they may hold clips.
    """

    files: list[str] = field(default_factory=list)
    refused: dict[str, Problem] = field(default_factory=dict)
    folders: list[Problem] = field(default_factory=list)

    def media(self) -> list[str]:
        """The files with one of MEDIA_SUFFIXES, in any case."""
        return [path for path in self.files if is_media(path)]

    def lost(self, wanted: Callable[[str], bool]) -> list[Problem]:
        """The folders not entered, and of the files refused those that were wanted."""
        return self.folders + [problem for path, problem in self.refused.items() if wanted(path)]

    def refuse(self, kind: str, path: str, message: str) -> None:
        """Leaves a file out, and says why."""
        self.refused[path] = Problem(kind, path, message)


def is_media(path: str) -> bool:
    """Whether the file's extension is one of MEDIA_SUFFIXES, in any case."""
    return os.path.splitext(path)[1].lower() in MEDIA_SUFFIXES


def is_audio(path: str) -> bool:
    """Whether the file's extension is one of AUDIO_SUFFIXES, in any case."""
    return os.path.splitext(path)[1].lower() in AUDIO_SUFFIXES


def check_root(root: Path) -> None:
    """Refuses a corpus root that cannot be read.

    Raises:
        PipelineError: no such folder, not a folder, or no permission.
    """
    try:
        with os.scandir(root):
            return
    except FileNotFoundError:
        problem = "no such folder; expected the folder with the raw clips"
    except NotADirectoryError:
        problem = "is a file; expected the folder with the raw clips (unpack an archive first)"
    except OSError as error:
        problem = f"cannot be read: {error.strerror or error}"
    raise PipelineError(f"{root}: {problem}; set corpus.root (CLIPS= on the make command line)")


def walk(root: Path, under: str = "") -> Tree:
    """Every file below a folder, hidden ones (.DS_Store, ._a.mp4, __MACOSX/) aside.

    A Git LFS pointer, which lies where a file was never fetched, is refused.

    A link is followed where it leads to a file inside the root; linked folders are not entered, since what lies inside
    the root is reached by its own path. A link that leaves the root is refused: a corpus from elsewhere must not pull
    in other files of this machine.

    Args:
        root: the corpus root; paths are relative to it.
        under: the folder to walk, relative to root; it may itself be a link to another disk.
    """
    inside = (os.path.realpath(root), os.path.realpath(root / under))
    tree = Tree()
    pending = [under]
    while pending:
        folder = pending.pop()
        try:
            with os.scandir(root / folder) as entries:
                pending.extend(_sort_in(tree, folder, entries, inside))
        except OSError as error:
            message = f"folder cannot be read ({error.strerror}); the clips in it are left out"
            tree.folders.append(Problem("missing_file", folder, message))
    tree.files.sort()
    return tree


def _sort_in(tree: Tree, folder: str, entries: Iterator[os.DirEntry[str]], inside: tuple[str, ...]) -> Iterator[str]:
    """Puts a folder's files where they belong; yields its subfolders."""
    for entry in entries:
        if entry.name.startswith(".") or entry.name == "__MACOSX":
            continue
        path = f"{folder}/{entry.name}" if folder else entry.name
        if not _is_unicode(path):
            _refuse_name(tree, os.fsencode(path).decode("utf-8", "backslashreplace"), is_folder=entry.is_dir())
        elif entry.is_symlink():
            _sort_in_link(tree, path, entry, inside)
        elif entry.is_dir():
            yield path
        elif not entry.is_file():
            continue
        elif _is_lfs_pointer(entry):
            tree.refuse("missing_file", path, "a Git LFS pointer, not the file itself; fetch it with `git lfs pull`")
        else:
            tree.files.append(path)


def _is_lfs_pointer(entry: os.DirEntry[str]) -> bool:
    try:
        if not len(_LFS_POINTER) < entry.stat().st_size < _LFS_POINTER_BYTES:
            return False
        with open(entry.path, "rb") as file:
            return file.read(len(_LFS_POINTER)) == _LFS_POINTER
    except OSError:  # whoever reads the file says so
        return False


def _is_unicode(path: str) -> bool:
    try:
        path.encode("utf-8")
    except UnicodeEncodeError:  # a byte of the file system that is no UTF-8, kept by Python as a surrogate
        return False
    return True


def _refuse_name(tree: Tree, shown: str, *, is_folder: bool) -> None:
    if is_folder:
        tree.folders.append(Problem("unreadable_row", shown, "the folder's name is not UTF-8; rename it"))
    else:
        tree.refuse("unreadable_row", shown, "the name is not UTF-8; rename it")


def _sort_in_link(tree: Tree, path: str, entry: os.DirEntry[str], inside: tuple[str, ...]) -> None:
    target = os.path.realpath(entry.path)
    leaves = not any(os.path.commonpath((target, base)) == base for base in inside)
    outside = "a link that leaves the corpus root; put what it stands for there"
    if os.path.isdir(target):
        if leaves:
            tree.folders.append(Problem("unreadable_row", path, outside))
    elif not os.path.exists(target):
        tree.refuse("missing_file", path, "a link to nothing; fetch the file it stands for")
    elif leaves:
        tree.refuse("unreadable_row", path, outside)
    elif entry.is_file():
        tree.files.append(path)


def check_inside(root: Path, path: Path) -> Path:
    """The path of a corpus' own table, refused where a link leads it out of the root: others' files are not to be read.

    Raises:
        PipelineError: it leads elsewhere.
    """
    if not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(root)):
        raise PipelineError(f"{path} is a link that leaves the corpus root; put the file that it stands for there")
    return path


def refuse_empty(corpus: Corpus, looked_for: str) -> None:
    """Refuses a corpus without a single clip.

    Args:
        looked_for: the layout that was expected.
    Raises:
        PipelineError: no clips; says what was looked for and what is there instead.
    """
    if corpus.clips:
        return
    suffixes = ", ".join(suffix.removeprefix(".") for suffix in MEDIA_SUFFIXES)
    problem = f"; first problem: {corpus.problems[0].where}: {corpus.problems[0].message}" if corpus.problems else ""
    raise PipelineError(
        f"no clips in {corpus.root}: looked for {looked_for} (extensions: {suffixes}); found {_found(corpus.root)}"
        f"{problem}; set corpus.root (CLIPS= on the make command line) to the right folder"
    )


def _found(root: Path) -> str:
    with os.scandir(root) as entries:
        names = sorted(entry.name + ("/" if entry.is_dir() else "") for entry in entries)
    more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
    return (", ".join(names[:_NAMES_SHOWN]) or "an empty folder") + more
