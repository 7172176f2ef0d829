"""Files as lists name them: whatever a name is, it is bytes or a failure."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.collect.files import Lists, captions_of, read_file, unlisted, walk
from stages.core.errors import StageError
from stages.core.pairs import Failure
from tests.collect.reading import plant


def code(root: Path, name: str) -> str:
    data = read_file("s", root, root / name)
    return data.code if isinstance(data, Failure) else "read"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = plant(tmp_path / "set", {"a.png": b"x", "sub/b.png": b"y", "c.txt": "z"})
    plant(tmp_path, {"secret.png": b"s"})
    (root / "out.png").symlink_to(tmp_path / "secret.png")
    (root / "in.png").symlink_to(root / "a.png")
    (root / "broken.png").symlink_to(root / "nothing.png")
    (root / "circle.png").symlink_to(root / "circle.png")
    os.mkfifo(root / "pipe.png")
    return root


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("a.png", "read"),
        ("in.png", "read"),
        ("sub", "unreadable_file"),
        ("pipe.png", "unreadable_file"),  # reading it would never end
        ("nul\0.png", "unreadable_file"),
        ("x" * 300, "unreadable_file"),
        ("broken.png", "missing_file"),
        ("none.png", "missing_file"),
        ("out.png", "outside_folder"),
        ("circle.png", "outside_folder"),
        ("../secret.png", "outside_folder"),
        ("sub/../a.png", "outside_folder"),  # a second name of a file that has one
        ("/etc/hostname", "outside_folder"),
    ],
)
def test_a_file_is_read_or_a_failure(root: Path, name: str, wanted: str) -> None:
    assert code(root, name) == wanted


@given(name=st.text(min_size=1, max_size=40))
def test_no_name_raises_or_leaves(tmp_path_factory: pytest.TempPathFactory, name: str) -> None:
    root = tmp_path_factory.getbasetemp() / "names"
    root.mkdir(exist_ok=True)
    assert code(root, name) in ("missing_file", "outside_folder", "unreadable_file")


def test_every_file_is_listed_or_a_failure(root: Path) -> None:
    (root / "linked").symlink_to(root / "sub")
    listed = {"a.png", "pipe.png"}
    lost = {failure.path: failure.code for failure in unlisted("s", root, root, listed)}
    texts = {"c.txt"}
    assert lost.keys() | listed | texts == {path.relative_to(root).as_posix() for path in walk(root)}
    assert not lost.keys() & (listed | texts)
    assert {path for path, why in lost.items() if why == "linked_folder"} == {"linked"}


def test_lists_say_which_lines_are_broken(root: Path) -> None:
    plant(root, {"list.txt": b"\xef\xbb\xbf1 one\r\n\r\ntwo\r\n1 again\r\n3 caf\xff\r\n"})
    lists = Lists("s", root, "mend it")
    assert lists.read(root / "list.txt", r"(\d+) (\S+)") == {"1": ("one",), "3": ("caf\ufffd",)}
    assert [(failure.path, failure.code) for failure in lists.failures] == [
        ("list.txt:3", "malformed_line"),
        ("list.txt:4", "listed_twice"),
    ]
    for name in ("sub", "pipe.png"):
        with pytest.raises(StageError, match=f"{name}: is no file; mend it"):
            lists.read(root / name, r"(\d+) (\S+)")


def test_captions_lie_in_files(root: Path) -> None:
    plant(root, {"c.txt": "\ufeffone\n\n  two   words\ufffd\n"})
    assert captions_of(root, root / "c.txt") == ["one", "two words"]
    assert [captions_of(root, root / name) for name in ("sub", "out.png", "circle.png", "nul\0")] == [[], [], [], []]
