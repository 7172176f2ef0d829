"""What README and guide say goes into params.yaml is taken by the stages' own types and by `check`."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from pydantic import BaseModel, RootModel, ValidationError, create_model

from stages.check import run as check
from stages.check.sections import SECTION_TYPES
from stages.clean.review import read_review
from stages.core.params import Section, Yaml12Loader, parse_section, read_params
from tests.conftest import ROOT
from tests.pages import PARAGRAPHS, Paragraph

BLOCKS = [each for each in PARAGRAPHS if each.kind in ("params", "prompts")]
KNOB = re.compile(r"`([a-z_]+(?:\.[a-z_]+)*): ([^*`][^`]*)`")  # `a: *half` is an alias of what isn't there
TEXTS = [each for each in PARAGRAPHS if each.kind == "text"]
KNOBS = sorted({(*found, each.section) for each in TEXTS for found in KNOB.findall(each.text)})


def load(text: str) -> Any:
    return yaml.load(text, Loader=Yaml12Loader)


def whole(block: Paragraph) -> dict[str, Any]:
    """The project's params with what the block says in place of its own."""
    tree = read_params(ROOT / "params.yaml")
    said = load(block.text)
    for section, values in said.items() if block.kind == "params" else [("sample", {"prompts": said})]:
        tree[section] = values if section in ("merge", "grid") else {**tree[section], **values}
    if "name: strength" in block.text:  # "a LoRA by another strength": of a model that was trained as one
        tree["train"]["method"] = "lora"
    return tree


def put(tree: dict[str, Any]) -> None:
    """Below the current folder, all files and folders that the params name; empty, but for lists of prompts."""
    sources = parse_section(SECTION_TYPES["collect"], "collect", tree["collect"]).sources
    conditions = [each.removeprefix("folder:") for each in tree["preprocess"].get("conditions", [])]
    folders = [f"models/imported/{name}" for name in re.findall(r"folder:([\w-]+)", repr(tree))]
    folders += [f"data/conditions/{name}/{source.name}" for name in conditions for source in sources]
    files = [f"models/imported/{name}" for name in re.findall(r"file:([\w.-]+)", repr(tree))]
    files += [f"data/prompts/{name}" for name in re.findall(r"[\w-]+\.(?:png|jsonl)", repr(tree["sample"]))]
    for source in sources:
        path = f"data/sources/{getattr(source, 'path', '') or source.name}"
        (files if Path(path).suffix else folders).append(path)
    for folder in ("data/prompts", *folders):
        Path(folder).mkdir(parents=True, exist_ok=True)
    for name in files:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text('"red apple"\n')


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: f"{block.section}: {block.text.splitlines()[0]}")
def test_a_block_of_params_passes_check(block: Paragraph, in_folder: Path) -> None:
    tree = whole(block)
    Path("params.yaml").write_text(yaml.safe_dump(tree, sort_keys=False))
    put(tree)
    data = Path("data")
    check.main(data / "sources", Path("models/imported"), data / "conditions", data / "prompts", Path("checked.json"))
    assert Path("checked.json").is_file()


def models(annotation: Any, seen: set[type[BaseModel]]) -> Iterator[type[BaseModel]]:
    """Every type of a section's values, from the section's own on."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel) and annotation not in seen:
        seen.add(annotation)
        yield annotation
        for field in annotation.model_fields.values():
            yield from models(field.annotation, seen)
    for part in get_args(annotation):
        yield from models(part, seen)


def takes(kind: type[BaseModel], knob: str, value: Any) -> bool:
    if knob not in kind.model_fields or issubclass(kind, RootModel):
        return False
    field = kind.model_fields[knob]
    alone: dict[str, Any] = {knob: (field.annotation, field)}
    try:
        create_model("Knob", __config__=Section.model_config, **alone).model_validate({knob: value})
    except ValidationError:
        return False
    return True


@pytest.mark.parametrize(("knob", "value", "section"), KNOBS)
def test_a_knob_in_the_text_takes_its_value(knob: str, value: str, section: str) -> None:
    name, _, rest = knob.partition(".")
    if rest:
        values: Any = load(value)
        for key in reversed(rest.split(".")):
            values = {key: values}
        parse_section(SECTION_TYPES[name], name, values)
    else:
        seen: set[type[BaseModel]] = set()
        known = [kind for section_type in SECTION_TYPES.values() for kind in models(section_type, seen)]
        assert any(takes(kind, knob, load(value)) for kind in known)


def test_there_are_such_knobs_and_others_are_refused() -> None:
    assert len(KNOBS) > 15
    kinds = list(models(SECTION_TYPES["train"], set()))
    assert any(takes(kind, "rank", 8) for kind in kinds)
    assert not any(takes(kind, "rank", "high") or takes(kind, "rang", 8) for kind in kinds)


def test_other_blocks_are_what_programs_say_and_a_table() -> None:
    others = {each.text.split("\n")[0] for each in PARAGRAPHS if each.kind == "other"}
    assert others == {
        "key,verdict,caption,note",
        "ok    results  dvc.lock holds those of this code and these params",
    }


def test_the_review_is_read(tmp_path: Path) -> None:
    [table] = [each.text for each in PARAGRAPHS if each.text.startswith("key,verdict")]
    keys = [f"{start}{'0' * 60}" for start in re.findall(r"^(\w{4})\.\.\.", table, re.M)]
    (tmp_path / "review.csv").write_text(table.replace("...", "0" * 60))
    says = read_review(tmp_path / "review.csv", keys)
    assert [says[key].verdict for key in keys] == ["drop", "keep"]
