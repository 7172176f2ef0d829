"""Every recipe is whole, says why it differs, and runs from its data set's own files to the report."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from stages.check.sections import SECTION_TYPES
from stages.core.params import SECTIONS, parse_section, read_params
from tests.conftest import ROOT
from tests.recipes.miniature import make_project, miniature, run_all
from tests.recipes.trees import COUNT, HELD_OUT, SPLIT_BY_THEIR_AUTHORS, planted

FILES = {path.stem: path for path in sorted((ROOT / "recipes").glob("*.yaml"))}
KNOBS = ("inspect", "clean", "preprocess", "encode", "train", "sample")
# Text that says itself what it is, and what the head of the file is about.
SELF_EVIDENT = ("compute", "method", "prompts", "prompt", "preview_prompts", "controlnet", "words")
# What a method writes beside the model.
BESIDE = {
    "lora": "adapter/pytorch_lora_weights.safetensors",
    "dreambooth": "checkpoint.safetensors",
    "textual_inversion": "embeddings/thing.safetensors",
    "controlnet": "controlnet/diffusion_pytorch_model.safetensors",
}
PIPELINES = {"sdxl": "StableDiffusionXLPipeline", "sd3": "StableDiffusion3Pipeline"}


def leaves(node: yaml.Node | None, keys: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], slice]]:
    """Each key that has a value of its own, from the section on, and the lines that it takes."""
    assert isinstance(node, yaml.MappingNode)
    for key, value in node.value:
        path = (*keys, key.value)
        if isinstance(value, yaml.MappingNode) and not value.flow_style:
            yield from leaves(value, path)
        else:
            yield path, slice(key.start_mark.line, max(value.end_mark.line, key.start_mark.line + 1))


def value_at(tree: Any, path: tuple[str, ...]) -> Any:
    for key in path:
        tree = tree.get(key) if isinstance(tree, dict) else None
    return tree


def unexplained(text: str, tree: dict[str, Any]) -> list[str]:
    """The knobs that differ from their default and have no word beside or above them."""
    lines, found = text.splitlines(), []
    for path, own in leaves(yaml.compose(text)):
        section, name = path[0], path[-1]
        if section not in KNOBS or len(path) == 1 or name in SELF_EVIDENT:
            continue
        default = value_at(SECTION_TYPES[section]().model_dump(mode="json"), path[1:])
        commented = any("#" in line for line in lines[own]) or lines[own.start - 1].lstrip().startswith("#")
        if value_at(tree, path) != default and not commented:
            found.append(".".join(path))
    return found


@pytest.mark.parametrize("name", FILES)
def test_a_recipe_is_whole_and_says_why_it_differs(name: str) -> None:
    tree = read_params(FILES[name])
    assert list(tree) == list(SECTIONS)
    for section, kind in SECTION_TYPES.items():
        parse_section(kind, section, tree[section])
    text = FILES[name].read_text()
    assert text.startswith("# ")
    if name != "merge-sweep":  # whose sections are those of params.yaml
        assert not unexplained(text, tree)


def test_the_test_of_comments_fails_where_one_is_missing() -> None:
    text = FILES["sd15-lora"].read_text()
    lines = [line.partition("#")[0] if "learning_rate" in line else line for line in text.splitlines()]
    bare = "\n".join(lines)
    assert unexplained(bare, yaml.safe_load(bare)) == ["train.learning_rate"]


def test_a_sweep_of_merges_is_the_default_but_for_its_merges() -> None:
    default, sweep = read_params(ROOT / "params.yaml"), read_params(FILES["merge-sweep"])
    assert {name for name in SECTIONS if sweep[name] != default[name]} == {"merge"}


def test_the_guide_has_a_line_a_recipe() -> None:
    text = (ROOT / "docs" / "guide.md").read_text()
    table = text[text.index("## Recipes") :].partition("\n## ")[0]
    rows = [line.split("|")[1].strip(" `") for line in table.splitlines() if line.startswith("| `")]
    assert sorted(rows) == sorted(FILES)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in FILES if name != "pretrain-tiny"])
def test_a_recipe_runs_from_its_data_set_to_the_report(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    params = miniature(read_params(FILES[name]))
    sources, method = params["collect"]["sources"], params["train"].get("method", "full")
    make_project(tmp_path, params)
    with planted(tmp_path / "data" / "sources", sources):
        ran = run_all(tmp_path, monkeypatch)
    assert ran.index("train") < ran.index("evaluate") < ran.index("report")

    # The recipe's own rules keep every picture of its data set, and its held-out pictures stay held out.
    collected = json.loads(Path("reports/collect.json").read_text())
    assert {source["failures"] for source in collected.values()} == {0}
    cleaned = json.loads(Path("reports/clean.json").read_text())
    assert cleaned["rejected_by"] == {}
    assert cleaned["pictures"] == COUNT.get(sources[0].get("name"), 12)
    if sources[0]["kind"] in SPLIT_BY_THEIR_AUTHORS:
        assert cleaned["pictures"] - cleaned["train"] == HELD_OUT

    # What came out is of the base's family, with what the method writes beside it.
    index = json.loads(Path("models/trained/model_index.json").read_text())
    assert index["_class_name"] == PIPELINES.get(name.partition("-")[0], "StableDiffusionPipeline")
    assert method not in BESIDE or Path("models/trained", BESIDE[method]).is_file()
    losses = pd.read_csv("reports/train/plots/metrics/validation/loss.tsv", sep="\t")
    assert list(losses.step) == [0, 2, 4]
    rows = json.loads(Path("reports/evaluation.json").read_text())
    assert set(rows) >= {"base", "trained", *params["merge"]}


def test_pretrain_tinys_commands_are_read() -> None:
    """What the next test runs."""
    assert [(last, changes.get("train.method"), kept) for last, changes, kept in sittings()] == [
        ("train", None, "tiny-vae"),
        ("train", "clip", "tiny-clip"),
        ("train", "full", "tiny-unet"),
        ("report", "full", None),
    ]


def sittings() -> list[tuple[str, dict[str, Any], str | None]]:
    """Of each `dvc` command in pretrain-tiny's head: its last stage, what it changes, the name its model is kept by."""
    head = FILES["pretrain-tiny"].read_text().partition("\n\n")[0]
    commands = re.sub(r" *\\\n#", "", head).replace("&&\n#", "&&")
    found = []
    for line in re.findall(r"^# +dvc (.*)$", commands, re.MULTILINE):
        changes = {key: yaml.safe_load(value) for key, value in re.findall(r"-S (\S+?)=(\S+)", line)}
        kept = re.search(r"models/imported/(\S+)", line)
        target = re.match(r"(repro|exp run) train\b", line)
        found.append(("train" if target else "report", changes, kept[1] if kept else None))
    return found


@pytest.mark.slow
def test_pretrain_tiny_runs_in_its_four_sittings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Autoencoder, CLIP, denoiser, denoiser: each on the result of the one before, by the commands of its head."""
    recipe = read_params(FILES["pretrain-tiny"])
    make_project(tmp_path, recipe)
    with planted(tmp_path / "data" / "sources", recipe["collect"]["sources"]):
        for last, changes, kept in sittings():
            for key, value in changes.items():
                section, _, knob = key.partition(".")
                recipe[section][knob] = value
            params = miniature(recipe)
            (tmp_path / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
            run_all(tmp_path, monkeypatch, last)
            if kept:
                shutil.copytree("models/trained", f"models/imported/{kept}")
    learned = {part: json.loads(Path(f"models/trained/{part}/config.json").read_text()) for part in ("unet", "vae")}
    assert learned["unet"]["in_channels"] == learned["vae"]["latent_channels"]
    assert Path("reports/index.html").is_file()


def test_words_and_a_blend_with_the_base_are_refused_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    params = miniature(read_params(FILES["textual-inversion"])) | {"merge": {"half": {}}}
    make_project(tmp_path, params)
    (tmp_path / "data" / "sources" / "thing").mkdir()
    with pytest.raises(SystemExit):
        run_all(tmp_path, monkeypatch, "check")
    assert capsys.readouterr().err.startswith("error: merge.half: blends trained")
