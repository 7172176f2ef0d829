"""Write params.schema.json and docs/params.md from the types: `make schema`."""

import json
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from stages.check.sections import SECTION_TYPES

Node = dict[str, Any]


def schema() -> Node:
    """JSON Schema (2020-12) of the whole params.yaml: editors complete and check it."""
    sections, definitions = {}, {}
    for name, kind in SECTION_TYPES.items():
        node = TypeAdapter(kind).json_schema()
        definitions.update(node.pop("$defs", {}))
        sections[name] = node
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "params.yaml of a darkroom project",
        "type": "object",
        "properties": sections,
        "additionalProperties": False,
        "$defs": dict(sorted(definitions.items())),
    }


def page(tree: Node) -> str:
    """Every knob in Markdown: key, what it takes, default, meaning."""
    lines = [
        "# Every knob",
        "",
        "Written by `make schema` from the types in `stages/*/params.py`. Set a knob in `params.yaml`, or for one",
        "experiment with `dvc exp run -S 'section.key=value'` (`-S '+section.key=value'` if params.yaml hasn't it).",
    ]
    for name, node in tree["properties"].items():
        lines += ["", f"## {name}", "", "| key | takes | default | meaning |", "|---|---|---|---|"]
        lines += [f"| {' | '.join(row)} |" for row in rows(node, tree["$defs"], name)]
    return "\n".join(lines) + "\n"


def rows(node: Node, definitions: Node, prefix: str) -> list[tuple[str, str, str, str]]:
    """(key, takes, default, meaning) of a section and of what is nested in it."""
    found = []
    for key, knob in resolve(node, definitions).get("properties", {}).items():
        name, target = f"{prefix}.{key}", resolve(knob, definitions)
        if "properties" in target:
            found += rows(target, definitions, name)
            continue
        default = "required" if "default" not in knob else f"`{json.dumps(knob['default'], ensure_ascii=False)}`"
        branches = union(target.get("items", {}), definitions)
        found.append(
            (f"`{name}`", takes(target, definitions), default if not branches else "", target.get("description", ""))
        )
        for shape, node_of in ((name, target), (f"{name}[]", resolve(target.get("items", {}), definitions))):
            for branch in node_of.get("anyOf", []):
                if "properties" in resolve(branch, definitions):
                    found += rows(branch, definitions, shape)
        for branch in branches:
            kind = resolve(branch, definitions)["properties"]["kind"]["const"]
            found += rows(branch, definitions, f"{name}[{kind}]")
    for table in [node.get("additionalProperties"), *node.get("patternProperties", {}).values()]:
        if not isinstance(table, dict):
            continue
        found += rows(resolve(table, definitions), definitions, f"{prefix}.<name>")
    return found


def takes(knob: Node, definitions: Node) -> str:
    """What a knob takes, in a few words: its type and bounds, or its choices."""
    if "enum" in knob:
        return ", ".join(f"`{value}`" for value in knob["enum"])
    if "const" in knob:
        return f"`{knob['const']}`"
    if branches := knob.get("anyOf") or knob.get("oneOf"):
        return " or ".join(takes(resolve(branch, definitions), definitions) for branch in branches)
    if knob.get("type") == "array":
        branches = union(knob["items"], definitions)
        inner = "one of the below" if branches else takes(resolve(knob["items"], definitions), definitions)
        return f"list of {inner}"
    words = {"integer": "whole number", "number": "number", "string": "text", "boolean": "true, false", "null": "null"}
    words["object"] = "table"
    bounds = {"minimum": "≥ {}", "exclusiveMinimum": "> {}", "maximum": "≤ {}", "exclusiveMaximum": "< {}"}
    said = [shape.format(f"{knob[name]:g}") for name, shape in bounds.items() if name in knob]
    if "multipleOf" in knob:
        said.append(f"multiple of {knob['multipleOf']}")
    return ", ".join([words.get(knob.get("type", ""), "value"), *said])


def union(node: Node, definitions: Node) -> list[Node]:
    """The branches of a union of sections, none if it is no such union."""
    branches: list[Node] = resolve(node, definitions).get("oneOf", [])
    return branches


def resolve(node: Node, definitions: Node) -> Node:
    """A node with its reference followed; what stands beside the reference counts more."""
    if "$ref" not in node:
        return node
    target: Node = definitions[node["$ref"].rsplit("/", 1)[1]]
    return {**target, **{key: value for key, value in node.items() if key != "$ref"}}


def main() -> None:
    """Write both files."""
    tree = schema()
    Path("params.schema.json").write_text(json.dumps(tree, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    Path("docs/params.md").write_text(page(tree), encoding="utf-8")


if __name__ == "__main__":
    main()
