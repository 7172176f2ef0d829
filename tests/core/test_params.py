"""params.yaml: read as DVC reads it, refused in one line."""

import string
from pathlib import Path
from typing import Any

import pytest
import yaml
from dvc.utils.serialize import parse_yaml
from hypothesis import given
from hypothesis import strategies as st

from stages.check.sections import SECTION_TYPES
from stages.clean.params import CleanParams
from stages.collect.params import CollectParams
from stages.core.errors import StageError
from stages.core.params import Yaml12Loader, load_section, parse_section, read_params
from stages.train.params import TrainParams

NUMBERS = [
    "1e-6",
    "1e-06",
    "1E5",
    "1.0e+5",
    "-3",
    "+3",
    "0x1F",
    "0o17",
    "017",
    "010",
    "1_000",
    ".5",
    "5.",
    "-.inf",
    ".nan",
]
WORDS = ["yes", "no", "on", "off", "true", "True", "TRUE", "null", "~", "", "1:30", "0.1.2", "e5", "1e", "12e03x", "<"]


def ours(text: str) -> Any:
    return yaml.load(text, Loader=Yaml12Loader)


def same(a: object, b: object) -> bool:
    return type(a) is type(b) and (a == b or (a != a and b != b))


@pytest.mark.parametrize("word", NUMBERS + WORDS)
def test_scalars_mean_what_dvc_thinks(word: str) -> None:
    text = f"key: {word}\n"
    assert same(ours(text)["key"], parse_yaml(text, "params.yaml")["key"])


@given(st.text(string.digits + "+-.eExob_", min_size=1, max_size=7))
def test_number_like_scalars_mean_what_dvc_thinks(word: str) -> None:
    text = f"key: {word}\n"
    try:
        theirs = parse_yaml(text, "params.yaml")
    except Exception:  # noqa: BLE001 - whatever DVC refuses needs no meaning here
        return
    assert same(ours(text)["key"], theirs["key"])


def test_numbers_are_numbers() -> None:
    assert ours("{a: 1e-6, b: 010, c: yes}") == {"a": 1e-6, "b": 10, "c": "yes"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("train: {learning_rat: 1}", ["unknown key train.learning_rat", "did you mean learning_rate?"]),
        ("trian: {}", ["unknown section 'trian'", "did you mean train?"]),
        ("train: {learning_rate: 2.0}", ["train.learning_rate is 2.0", "less than or equal to 1"]),
        ("train: {steps: '3'}", ["train.steps is '3'", "valid integer"]),
        ("train: {steps: true}", ["train.steps is True", "valid integer"]),
        ("train: {steps: 1, steps: 2}", ["line 1", "'steps' stands twice"]),
        ("train: [", ["line", "not YAML"]),
        ("train", ["holds no sections"]),
    ],
)
def test_faults_are_one_line_that_says_where_and_what_to_do(in_folder: Path, text: str, said: list[str]) -> None:
    (in_folder / "params.yaml").write_text(text)
    with pytest.raises(StageError) as caught:
        load_section(Path("params.yaml"), TrainParams, "train")
    line = str(caught.value)
    assert "\n" not in line
    for words in said:
        assert words in line


def test_nested_unknown_keys_are_named() -> None:
    with pytest.raises(StageError, match=r"unknown key clean\.duplicates\.radios; did you mean radius"):
        parse_section(CleanParams, "clean", {"duplicates": {"radios": 3}})
    with pytest.raises(StageError, match=r"sid.*did you mean side"):
        parse_section(CollectParams, "collect", {"sources": [{"kind": "openmoji", "sid": 3}]})


def test_missing_file_is_said(in_folder: Path) -> None:
    with pytest.raises(StageError, match=r"params\.yaml: can't be read \(No such file"):
        read_params(in_folder / "params.yaml")


@pytest.mark.parametrize("name", SECTION_TYPES)
def test_every_section_has_working_defaults(name: str) -> None:
    if name != "merge":
        assert parse_section(SECTION_TYPES[name], name, None)


def test_sections_are_frozen() -> None:
    params = parse_section(TrainParams, "train", {})
    with pytest.raises(ValueError, match="frozen"):
        params.steps = 3  # type: ignore[misc]  # the point of the test
