"""Read one section of params.yaml and check it before any work.

Values mean what DVC thinks they mean. DVC reads YAML 1.2, in which `1e-6` is a
number and `yes` is a word; plain PyYAML reads YAML 1.1, where it is the other
way round. The loader below has the 1.2 core schema (YAML 1.2.2, section 10.3.2)
with the extensions that DVC's own reader, ruamel.yaml, keeps.
"""

import difflib
import re
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from stages.core.errors import StageError

T = TypeVar("T")

SECTIONS = (
    "base",
    "collect",
    "caption",
    "score",
    "inspect",
    "clean",
    "preprocess",
    "encode",
    "train",
    "merge",
    "sample",
    "grid",
    "evaluate",
    "report",
)


class Section(BaseModel):
    """Typed knobs: frozen, unknown keys refused, types not guessed (`"3"` is no number)."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, validate_default=True)


class Yaml12Loader(yaml.SafeLoader):
    """PyYAML's safe loader with YAML 1.2's idea of what a plain scalar is."""

    yaml_implicit_resolvers = {}  # noqa: RUF012 - PyYAML reads it from the class: this one starts without 1.1's


_INTEGER = r"[-+]?0b[0-1_]+|[-+]?0o?[0-7_]+|[-+]?[0-9_]+|[-+]?0x[0-9a-fA-F_]+"
_FLOAT = (
    r"[-+]?(?:[0-9][0-9_]*)\.[0-9_]*(?:[eE][-+]?[0-9]+)?"
    r"|[-+]?(?:[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)"
    r"|[-+]?\.[0-9_]+(?:[eE][-+][0-9]+)?"
    r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
)
for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("float", _FLOAT, "-+0123456789."),
    ("int", _INTEGER, "-+0123456789"),
    ("merge", r"<<", "<"),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
):
    Yaml12Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), list(_first))


def _integer(loader: Yaml12Loader, node: yaml.ScalarNode) -> int:
    text = str(loader.construct_scalar(node)).replace("_", "")
    sign, digits = (-1, text[1:]) if text[0] == "-" else (1, text.lstrip("+"))
    base = {"0b": 2, "0o": 8, "0x": 16}.get(digits[:2].lower())
    return sign * (int(digits[2:], base) if base else int(digits))


def _mapping(loader: Yaml12Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[Any] = set()
    for key_node, _ in node.value:
        if key_node.tag == "tag:yaml.org,2002:merge":
            continue
        key = loader.construct_object(key_node, deep=True)
        if key in seen:
            raise yaml.MarkedYAMLError(problem=f"the key {key!r} stands twice", problem_mark=key_node.start_mark)
        seen.add(key)
    loader.flatten_mapping(node)
    return loader.construct_mapping(node, deep=True)


Yaml12Loader.add_constructor("tag:yaml.org,2002:int", _integer)
Yaml12Loader.add_constructor("tag:yaml.org,2002:map", _mapping)


def read_params(path: Path) -> dict[str, Any]:
    """The whole file as plain values; its top-level keys are known sections.

    Raises StageError if the file is missing, no YAML, or has an unknown section.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise StageError(str(path), f"can't be read ({error.strerror})", "run in the project's root") from None
    try:
        tree = yaml.load(text, Loader=Yaml12Loader)  # noqa: S506 - a SafeLoader: it makes plain values only
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 0
        raise StageError(f"{path}, line {line}", f"not YAML ({error.problem})", "mend that line") from None
    except (yaml.YAMLError, ValueError) as error:
        raise StageError(str(path), f"not YAML ({error})".replace("\n", " "), "mend the file") from None
    if not isinstance(tree, dict):
        raise StageError(str(path), "holds no sections", f"give it {', '.join(SECTIONS)}")
    for name in tree:
        if name not in SECTIONS:
            raise StageError(str(path), f"unknown section {name!r}", _nearest(str(name), SECTIONS))
    return tree


def parse_section(kind: type[T], name: str, values: Any) -> T:
    """Check one section's plain values against its type.

    Raises StageError naming section, key, value and bound: the first fault by position.
    """
    try:
        return TypeAdapter(kind).validate_python({} if values is None else values)
    except ValidationError as error:
        fault = error.errors()[0]
        where = ".".join(str(part) for part in (name, *fault["loc"]))
        if fault["type"] == "extra_forbidden":
            known = _known_keys(kind, fault["loc"][:-1])
            raise StageError("params.yaml", f"unknown key {where}", _nearest(str(fault["loc"][-1]), known)) from None
        what = fault["msg"][0].lower() + fault["msg"][1:]
        value = "" if fault["type"] == "missing" else f" is {fault['input']!r}, but"
        raise StageError("params.yaml", f"{where}{value} {what}", "see docs/params.md") from None


def load_section(path: Path, kind: type[T], name: str) -> T:
    """Read and check the section `name`; a missing one has every default."""
    return parse_section(kind, name, read_params(path).get(name))


def _nearest(name: str, known: tuple[str, ...]) -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean {close[0]}?" if close else f"known are {', '.join(known)}"


def _known_keys(kind: Any, loc: tuple[int | str, ...]) -> tuple[str, ...]:
    """The property names at `loc`, read from the JSON schema; empty where it branches."""
    schema = TypeAdapter(kind).json_schema()
    definitions = schema.get("$defs", {})

    def properties(node: dict[str, Any], rest: tuple[int | str, ...]) -> set[str]:
        if "$ref" in node:
            return properties(definitions[node["$ref"].rsplit("/", 1)[1]], rest)
        found: set[str] = set()
        for branch in node.get("anyOf", []) + node.get("oneOf", []):
            found |= properties(branch, rest)
        if not rest:
            return found | set(node.get("properties", {}))
        for child in (
            node.get("properties", {}).get(rest[0]),
            node.get("items"),
            node.get("additionalProperties"),
            *node.get("patternProperties", {}).values(),
        ):
            if isinstance(child, dict):
                found |= properties(child, rest[1:])
        # A discriminated union adds the chosen tag to `loc`; the schema has no such level.
        return found or (properties(node, rest[1:]) if node.get("oneOf") else set())

    return tuple(sorted(properties(schema, loc)))
