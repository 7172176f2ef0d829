"""Merging whole models: what comes out, from whatever they are stored in, and refusals before the first byte."""

import json
import textwrap
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from stages.core.errors import StageError
from stages.core.files import folder_digest
from stages.core.original_names import to_original
from stages.core.params import parse_section
from stages.merge import graph
from stages.merge.headers import Files
from stages.merge.params import TAKES, MergeParams
from tests.conftest import ROOT
from tests.merge.models import Kitchen, Tensors, folder, near, random_tensors, read

A = random_tensors(0)
B = near(A, 1)
C = near(A, 2)
IDS = "text_encoder.embeddings.position_ids"


def floats(tensors: Tensors) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in tensors.items() if tensor.is_floating_point()}


def assert_same(found: Tensors, expected: Tensors) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name


def assert_near(found: Tensors, expected: Tensors) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, msg=name)


@pytest.mark.parametrize(("ratio", "expected"), [(0.0, A), (1.0, {**B, IDS: A[IDS]})])
def test_the_ends_are_the_models(kitchen: Kitchen, ratio: float, expected: Tensors) -> None:
    assert_same(kitchen.put(A, {**B, IDS: B[IDS] + 1}).cook(ratio=ratio), expected)


def test_between_the_ends(kitchen: Kitchen) -> None:
    found = kitchen.put(A, B).cook(ratio=0.25)
    assert_near(floats(found), {name: 0.75 * A[name] + 0.25 * B[name] for name in floats(A)})
    told = json.loads((kitchen.out() / "merge.json").read_text())
    assert told["merge"]["recipe"]["ratio"] == 0.25
    assert told["merge"]["inputs"].keys() == {"base", "trained"}
    with safe_open(kitchen.out() / "unet" / "diffusion_pytorch_model.safetensors", "pt") as file:
        metadata = file.metadata()
    assert json.loads(metadata["darkroom"])["merge"] == told["merge"]
    assert metadata["format"] == "pt"
    webui = json.loads(metadata["sd_merge_recipe"])
    assert webui["interp_method"] == "Weighted sum"
    assert webui["primary_model_hash"] != webui["secondary_model_hash"]
    named = json.loads(metadata["sd_merge_models"])
    assert {named[webui[f"{place}_model_hash"]]["name"] for place in ("primary", "secondary")} == {"base", "trained"}


def test_half_precision_is_rounded_once(kitchen: Kitchen) -> None:
    a = random_tensors(0, torch.float16)
    b = near(a, 1)
    found = kitchen.put(a, b).cook(ratio=0.3)
    for name in floats(a):
        exact = (0.7 * a[name].double() + 0.3 * b[name].double()).half()
        assert found[name].dtype == torch.float16
        assert (found[name] != exact).float().mean() < 0.02, name


def test_type_of_the_result(kitchen: Kitchen) -> None:
    found = kitchen.put(A, B).cook(ratio=1.0, dtype="bfloat16")
    assert_same(found, {name: t.bfloat16() if t.is_floating_point() else A[name] for name, t in B.items()})


def test_values_that_the_type_cannot_hold(kitchen: Kitchen) -> None:
    huge = {**B, "unet.conv_in.bias": torch.full((8,), 1e6)}
    with pytest.raises(StageError, match=r"unet\.conv_in\.bias: has values beyond torch\.float16"):
        kitchen.put(A, huge).cook(ratio=1.0, dtype="float16")
    assert not kitchen.out().exists()


METHODS: list[dict[str, Any]] = [
    {"method": "sigmoid", "ratio": 0.3},
    {"method": "average", "models": [{"model": m, "weight": 2.0} for m in ("base", "trained", "folder:c")]},
    {"method": "add_difference", "a": "folder:c"},
    {"method": "slerp"},
    {"method": "slerp_deltas", "a": "trained", "b": "folder:c", "c": "base"},
    {"method": "ties", "models": [{"model": "trained"}, {"model": "folder:c", "weight": 0.5}]},
    {"method": "dare", "models": [{"model": "trained"}, {"model": "folder:c"}], "density": 0.5},
    {"method": "della", "models": [{"model": "trained"}, {"model": "folder:c"}], "density": 0.5},
    {"method": "model_stock", "models": [{"model": "trained"}, {"model": "folder:c"}]},
    {"method": "cosine_b"},
    {"method": "smooth_add", "a": "folder:c"},
    {"method": "extract_lora", "rank": 2},
]


@pytest.mark.parametrize("recipe", METHODS, ids=lambda recipe: recipe["method"])
def test_neither_threads_nor_runs_change_a_byte(
    kitchen: Kitchen, recipe: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    kitchen.put(A, B, c=C)
    digests = set()
    for threads in ("1", "4", "3"):
        monkeypatch.setenv("DARKROOM_WORKERS", threads)
        kitchen.cook(**recipe)
        digests.add(folder_digest(kitchen.out()))
    assert len(digests) == 1


@pytest.mark.parametrize(
    "recipe", [r for r in METHODS if r["method"] not in ("dare", "della")], ids=lambda r: r["method"]
)
def test_chunks_change_nothing(kitchen: Kitchen, recipe: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    whole = kitchen.put(A, B, c=C).cook(**recipe)
    monkeypatch.setattr(graph, "CHUNK", 100)
    assert_near(kitchen.cook(**recipe), whole)


@pytest.mark.parametrize("recipe", METHODS[:-2], ids=lambda recipe: recipe["method"])
def test_no_more_than_a_chunk_is_in_memory(
    kitchen: Kitchen, recipe: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of each input, or a row where rows are longer."""
    kitchen.put(A, B, c=C)
    longest = max(tensor[0].numel() for tensor in A.values())
    monkeypatch.setattr(graph, "CHUNK", 50)
    sizes, rows = [0], Files.rows

    def watched(*given: Any) -> torch.Tensor:
        found = rows(*given)
        sizes.append(found.numel())
        return found

    monkeypatch.setattr(Files, "rows", watched)
    kitchen.cook(**recipe)
    assert 0 < max(sizes) <= max(50, longest)


def test_the_guide_s_recipes_are_valid() -> None:
    text = (ROOT / "docs" / "guide.md").read_text()
    start, end = text.index("    merge:\n      half:"), text.index("\n| method | what it gives")
    recipes = yaml.safe_load(textwrap.dedent(text[start:end]))["merge"]
    assert len(parse_section(MergeParams, "merge", recipes).root) > 3


def test_the_guide_names_every_method() -> None:
    text = (ROOT / "docs" / "guide.md").read_text()
    for name in TAKES:
        assert f"`{name}`" in text, name


def test_a_recipe_in_a_recipe(kitchen: Kitchen) -> None:
    """As two merges, one after the other, but for the rounding in between."""
    text = """
    first: &first {a: base, b: trained, ratio: 0.3}
    second: {a: *first, b: "folder:c", ratio: 0.6}
    """
    recipes = yaml.safe_load(text)
    kitchen.put(A, B, c=C)
    folder(kitchen.imported / "first", kitchen.cook("first", **recipes["first"]))
    assert_near(
        kitchen.cook("second", **recipes["second"]), kitchen.cook("third", a="folder:first", b="folder:c", ratio=0.6)
    )


def test_what_is_drawn_does_not_depend_on_who_asks(kitchen: Kitchen, monkeypatch: pytest.MonkeyPatch) -> None:
    """Smooth add looks at rows around a chunk: they have to be the same rows that dare gives by itself."""
    monkeypatch.setattr(graph, "CHUNK", 40)
    dare = {"method": "dare", "models": [{"model": "trained"}], "density": 0.5}
    kitchen.put(A, B)
    folder(kitchen.imported / "dare", kitchen.cook("dare", **dare))
    nested = kitchen.cook("one", method="smooth_add", a="base", b=dare, c="base")
    assert_near(nested, kitchen.cook("two", method="smooth_add", a="base", b="folder:dare", c="base"))


def test_blocks_and_components(kitchen: Kitchen) -> None:
    found = kitchen.put(A, B).cook(ratio=0.0, blocks={"IN01": 1.0, "M00": 1.0}, components={"vae": 1.0})
    ones = {
        "unet.down_blocks.0.resnets.0.conv1.weight",
        "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.weight",
        "unet.mid_block.resnets.0.norm1.weight",
        "vae.encoder.conv_in.weight",
        "vae.decoder.mid_block.attentions.0.to_q.weight",
    }
    assert_same(found, {name: B[name] if name in ones else A[name] for name in A})


def test_blocks_as_a_list(kitchen: Kitchen) -> None:
    """IN00 to IN03 (two levels of one layer), M00, OUT00 to OUT03; with BASE before them."""
    kitchen.put(A, B)
    base_only = kitchen.cook(blocks=[1.0] + [0.0] * 9)
    assert_same(base_only, {name: A[name] if name.startswith("unet.") or name == IDS else B[name] for name in A})
    last = kitchen.cook(ratio=0.0, blocks=[0.0] * 8 + [1.0])
    ones = {"unet.up_blocks.1.resnets.1.conv1.weight", "unet.conv_out.weight"}
    assert_same(last, {name: B[name] if name in ones else A[name] for name in A})
    with pytest.raises(StageError, match=r"merge\.x: blocks has 25 ratios; give 9 for IN00 to OUT03, or BASE first"):
        kitchen.cook(blocks=[0.5] * 25)
    with pytest.raises(StageError, match=r"merge\.x: the model has no block IN11"):
        kitchen.cook(blocks={"IN11": 0.5})


def test_a_baked_vae(kitchen: Kitchen) -> None:
    found = kitchen.put(A, B, c=C).cook(ratio=0.0, vae="folder:c")
    assert_same(found, {name: C[name] if name.startswith("vae.") else A[name] for name in A})


def vae_of(tensors: Tensors) -> dict[str, torch.Tensor]:
    return {name.removeprefix("vae."): tensor for name, tensor in tensors.items() if name.startswith("vae.")}


def test_a_vae_by_itself(kitchen: Kitchen) -> None:
    """As diffusers shares it, and as one file without prefixes."""
    expected = {name: C[name] if name.startswith("vae.") else tensor for name, tensor in A.items()}
    kitchen.put(A, B)
    alone = kitchen.imported / "alone"
    alone.mkdir()
    config = {"_class_name": "AutoencoderKL", "scaling_factor": 0.18215}
    (alone / "config.json").write_text(json.dumps(config))
    save_file(vae_of(C), alone / "diffusion_pytorch_model.safetensors")
    assert_same(kitchen.cook("folder", ratio=0.0, vae="folder:alone"), expected)
    original = {key: t.contiguous() for key, t in to_original("sd1", C).items() if key.startswith("first_stage_model.")}
    save_file(
        {k.removeprefix("first_stage_model."): t for k, t in original.items()}, kitchen.imported / "v.safetensors"
    )
    assert_same(kitchen.cook("file", ratio=0.0, vae="file:v.safetensors"), expected)
    (alone / "config.json").write_text(json.dumps(config | {"scaling_factor": 0.13025}))
    with pytest.raises(StageError, match=r"the scale of latents 0\.18215 and 0\.13025"):
        kitchen.cook("other", vae="folder:alone")


def test_a_checkpoint_without_a_vae(kitchen: Kitchen) -> None:
    kitchen.put(A, B)
    pruned = {key: t.contiguous() for key, t in to_original("sd1", A).items() if not key.startswith("first")}
    save_file(pruned, kitchen.imported / "a.safetensors")
    with pytest.raises(
        StageError, match=r"file:a\.safetensors lacks vae\.\S+; take a whole checkpoint as a, or set vae"
    ):
        kitchen.cook(a="file:a.safetensors", b="trained")
    found = kitchen.cook(a="file:a.safetensors", b="trained", ratio=0.0, vae="trained", single_file=True)
    assert_same(found, {name: B[name] if name.startswith("vae.") else tensor for name, tensor in A.items()})
    single = load_file(kitchen.out() / "single_file.safetensors")
    assert single.keys() == to_original("sd1", A).keys()


def test_names_of_older_libraries(kitchen: Kitchen) -> None:
    """The first model's own names stay, whatever the others call the same tensors."""
    older = {"text_encoder.": "text_encoder.text_model.", "attentions.0.to_q": "attentions.0.query"}
    kitchen.put({_renamed(name, older): tensor for name, tensor in A.items()}, B)
    found = kitchen.cook(ratio=0.25)
    assert_near(floats(found), {_renamed(n, older): 0.75 * A[n] + 0.25 * B[n] for n in floats(A)})
    assert "vae.decoder.mid_block.attentions.0.query.weight" in found


def _renamed(name: str, exchanged: dict[str, str]) -> str:
    for new, old in exchanged.items():
        name = name.replace(new, old) if not name.startswith("unet.") else name
    return name


def test_stable_diffusion_3_by_parts(kitchen: Kitchen) -> None:
    a = {"transformer.pos_embed.proj.weight": torch.randn(4, 4), "vae.encoder.conv_in.weight": torch.randn(4, 3)}
    b = {name: tensor + 0.1 for name, tensor in a.items()}
    found = kitchen.put(a, b).cook(ratio=0.0, components={"transformer": 1.0})
    assert_same(found, {**a, "transformer.pos_embed.proj.weight": b["transformer.pos_embed.proj.weight"]})
    with pytest.raises(StageError, match="a sd3 has no blocks; give components instead"):
        kitchen.cook(blocks={"M00": 0.5})
    with pytest.raises(StageError, match="which has no such key names"):
        kitchen.cook(single_file=True)


def test_position_numbers_in_one_model_only(kitchen: Kitchen, capsys: pytest.CaptureFixture[str]) -> None:
    kitchen.put(A, {name: tensor for name, tensor in B.items() if name != IDS})
    assert_same(kitchen.cook(ratio=1.0), {**B, IDS: A[IDS]})
    assert f"{IDS} is in base only: whole numbers are not merged" in capsys.readouterr().out


def test_single_files(kitchen: Kitchen, capsys: pytest.CaptureFixture[str]) -> None:
    """Both ways: read like folders, and written so that they hold the same."""
    extra = {"alphas_cumprod": torch.rand(3)}
    kitchen.put(A, B)
    save_file(
        {k: t.contiguous() for k, t in (to_original("sd1", B) | extra).items()}, kitchen.imported / "b.safetensors"
    )
    expected = kitchen.cook("folders", ratio=0.3)
    assert_same(kitchen.cook("mixed", b="file:b.safetensors", ratio=0.3), expected)
    said = capsys.readouterr().out
    assert "file:b.safetensors has 1 tensors of alphas_cumprod that no folder has, which no merge reads" in said
    assert "file:b.safetensors doesn't say its prediction type" in said
    found = kitchen.cook("file", a="file:b.safetensors", b="trained", ratio=0.5, single_file=True)
    assert_same(found, {**B, IDS: B[IDS]})
    single = load_file(kitchen.out("file") / "single_file.safetensors")
    assert single.keys() == to_original("sd1", B).keys() | {"alphas_cumprod"}
    assert all(torch.equal(tensor, single[key]) for key, tensor in to_original("sd1", B).items())
    assert torch.equal(single["alphas_cumprod"], extra["alphas_cumprod"])


def test_averaged_weights_go_with_their_blocks(kitchen: Kitchen, capsys: pytest.CaptureFixture[str]) -> None:
    """model_ema: the UNet's weights once more, by their keys without dots; only in files."""
    kitchen.put(A, B)
    for name, tensors in (("a", A), ("b", B)):
        original = {key: tensor.contiguous() for key, tensor in to_original("sd1", tensors).items()}
        averaged = {f"model_ema.{k[6:].replace('.', '')}": t + 1 for k, t in original.items() if k.startswith("model.")}
        save_file(original | averaged, kitchen.imported / f"{name}.safetensors")
        save_file(original, kitchen.imported / f"{name}-pruned.safetensors")
    kitchen.cook(a="file:a.safetensors", b="file:b.safetensors", ratio=0.0, blocks={"M00": 1.0}, single_file=True)
    found = load_file(kitchen.out() / "single_file.safetensors")
    middle, first = ("diffusion_model.middle_block.0.in_layers.0.weight", "diffusion_model.input_blocks.0.0.weight")
    for key, tensors in ((middle, B), (first, A)):
        expected = to_original("sd1", tensors)[f"model.{key}"]
        assert torch.equal(found[f"model.{key}"], expected)
        assert torch.equal(found[f"model_ema.{key.replace('.', '')}"], expected + 1)
    kitchen.cook("pruned", a="file:a.safetensors", b="file:b-pruned.safetensors", ratio=1.0)
    assert "file:b-pruned.safetensors has no model_ema: file:a.safetensors's stays" in capsys.readouterr().out


def test_a_merged_model_is_an_ancestor(kitchen: Kitchen) -> None:
    kitchen.put(A, B).cook("first", ratio=0.3)
    (kitchen.imported / "first").symlink_to(kitchen.out("first"))
    kitchen.cook("second", a="folder:first", ratio=0.5)
    told = json.loads((kitchen.out("second") / "merge.json").read_text())["merge"]
    inner = told["ancestors"]["folder:first"]["unet/diffusion_pytorch_model.safetensors"]["merge"]
    assert inner["recipe"]["ratio"] == 0.3
    assert inner["inputs"]["base"] == kitchen_digests(kitchen, "first")


def kitchen_digests(kitchen: Kitchen, name: str) -> Any:
    return json.loads((kitchen.out(name) / "merge.json").read_text())["merge"]["inputs"]["base"]


def test_a_part_that_one_lacks_stays(kitchen: Kitchen, capsys: pytest.CaptureFixture[str]) -> None:
    unet = {name: tensor for name, tensor in B.items() if name.startswith("unet.")}
    found = kitchen.put(A, unet).cook(ratio=1.0)
    assert_same(found, {**A, **unet})
    assert "trained has no vae: base's stays" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("other", "options", "said"),
    [
        ({**B, "unet.extra": torch.ones(1)}, {}, "unet.extra is in trained only of base and trained"),
        ({n: t for n, t in B.items() if n != "unet.conv_in.bias"}, {}, r"unet.conv_in.bias is in base only"),
        ({**B, "unet.conv_in.bias": torch.ones(3)}, {}, r"unet.conv_in.bias has the shapes \(8,\) and \(3,\)"),
        ({**B, "unet.conv_in.bias": torch.ones(8).int()}, {}, "unet.conv_in.bias has the types"),
        (B, {"prediction": "v_prediction"}, "base and trained have the prediction type epsilon and v_prediction"),
        (B, {"scaling": 0.13025}, "base and trained have the scale of latents 0.18215 and 0.13025"),
        (B, {"act": "gelu"}, "base and trained are sd1 and sd2"),
    ],
)
def test_refusals(kitchen: Kitchen, other: Tensors, options: dict[str, Any], said: str) -> None:
    folder(kitchen.base, A)
    folder(kitchen.trained, other, **options)
    with pytest.raises(StageError, match=rf"merge\.x: {said}"):
        kitchen.cook()
    assert not kitchen.out().parent.exists()


@pytest.mark.parametrize(
    "recipe",
    [
        {"method": "add_difference", "b": "folder:stranger", "c": "base"},
        {"method": "ties", "models": [{"model": "trained"}, {"model": "folder:stranger"}]},
        {"method": "extract_lora", "b": "folder:stranger"},
        {"b": {"method": "task_arithmetic", "a": "folder:stranger", "models": [{"model": "base"}]}},
    ],
)
def test_a_difference_from_no_ancestor(kitchen: Kitchen, recipe: dict[str, Any]) -> None:
    kitchen.put(A, B, stranger=random_tensors(7))
    with pytest.raises(StageError, match=r"have no common ancestor: the cosine of unet\.\S+ and others is -?0\.\d+"):
        kitchen.cook(**recipe)


def test_pickles(kitchen: Kitchen) -> None:
    kitchen.put(A, B)
    torch.save({"state_dict": to_original("sd1", B), "epoch": 3}, kitchen.imported / "b.ckpt")
    with pytest.raises(StageError, match=r"file:b\.ckpt is a pickle; set allow_pickle_import"):
        kitchen.cook(b="file:b.ckpt")
    expected = kitchen.cook("folders", ratio=0.3)
    assert_same(kitchen.cook("pickle", b="file:b.ckpt", ratio=0.3, allow_pickle_import=True), expected)
    torch.save(to_original("sd1", B), kitchen.imported / "old.ckpt", _use_new_zipfile_serialization=False)
    assert_same(kitchen.cook("old", b="file:old.ckpt", ratio=0.3, allow_pickle_import=True), expected)


class Harm:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return Path.touch, (Path("harmed"),)  # type: ignore[return-value]  # what a hostile pickle would hold


def test_a_pickle_runs_no_code(kitchen: Kitchen) -> None:
    kitchen.put(A, B)
    torch.save({"state_dict": to_original("sd1", B), "more": Harm()}, kitchen.imported / "b.ckpt")
    with pytest.raises(StageError, match="holds more than tensors"):
        kitchen.cook(b="file:b.ckpt", allow_pickle_import=True)
    assert not Path("harmed").exists()


def test_diagnostics(kitchen: Kitchen) -> None:
    """b and c differ from a by constants of known size and sign."""
    a = {name: torch.ones_like(tensor) for name, tensor in floats(A).items()}
    b = {name: tensor + 0.1 for name, tensor in a.items()}
    c = {name: tensor - 0.3 for name, tensor in a.items()}
    models = [{"model": "trained"}, {"model": "folder:c"}]
    kitchen.put(a, b, c=c).cook(method="task_arithmetic", models=models)
    told = json.loads((kitchen.out() / "merge.json").read_text())
    assert told["relative_delta"] == pytest.approx(0.2)
    assert set(told["relative_delta_by_block"]) == {"IN00", "IN01", "IN02", "IN03", "M00", "OUT00", "OUT03", "BASE"}
    assert told["relative_delta_of_inputs"] == pytest.approx({"trained": 0.1, "folder:c": 0.3})
    assert told["cosines"] == pytest.approx({"trained, folder:c": -1.0})
    assert told["sign_conflicts"] == 1.0
    assert told["lost_to_rounding"] == 0.0


def test_what_rounding_takes_back(kitchen: Kitchen) -> None:
    """Half precision has steps of 2**-10 above 1: a quarter of one is lost, all of it where all is so small."""
    a = {name: torch.ones_like(tensor).half() for name, tensor in floats(A).items()}
    b = {name: (tensor.float() + 2**-10).half() for name, tensor in a.items()}
    kitchen.put(a, b).cook("quarter", ratio=0.25)
    assert json.loads((kitchen.out("quarter") / "merge.json").read_text())["lost_to_rounding"] == 1.0
    kitchen.cook("most", ratio=0.75)
    assert json.loads((kitchen.out("most") / "merge.json").read_text())["lost_to_rounding"] == 0.0


def test_missing_models(kitchen: Kitchen) -> None:
    kitchen.put(A, B)
    with pytest.raises(StageError, match=r"merge\.x: folder:none \(.*none\) is missing"):
        kitchen.cook(b="folder:none")
    with pytest.raises(StageError, match=r"merge\.x: .*none\.safetensors is missing"):
        MergeParams.model_validate({"x": {"b": "file:none.safetensors"}}).verify(kitchen.imported)


@pytest.mark.parametrize(
    ("recipes", "said"),
    [
        ({}, "at least 1 item"),
        ({"base": {}}, "has a recipe named base"),
        ({"x": {"a": "trianed"}}, "it has to be base, trained, folder:NAME"),
        ({"x": {"a": "folder:../../etc"}}, "it has to be base, trained, folder:NAME"),
        ({"x": {"method": "slerp", "density": 0.5}}, "the method slerp reads no density: it reads a, b"),
        ({"x": {"method": "ties"}}, "the method ties needs models"),
        ({"x": {"method": "model_stock", "models": [{"model": "base"}]}}, "needs two models"),
        ({"x": {"method": "average", "models": [{"model": "base", "weight": 0.0}]}}, "needs weights above 0"),
        ({"x": {"method": "lora"}}, "the method lora needs loras"),
        ({"x": {"a": {"metod": "slerp"}}}, r"unknown key merge\.x\.a\.recipe\.metod; did you mean method"),
        ({"x": {"ratoi": 1}}, r"unknown key merge\.x\.ratoi; did you mean ratio"),
    ],
)
def test_recipes_that_say_nonsense(recipes: dict[str, Any], said: str) -> None:
    with pytest.raises(StageError, match=said):
        parse_section(MergeParams, "merge", recipes)


@pytest.mark.parametrize(
    ("recipe", "refused"),
    [
        ({}, True),
        ({"a": "trained", "b": {"a": "trained", "b": "base"}}, True),
        ({"a": "trained", "b": "trained"}, False),
        ({"a": "trained", "b": "trained", "vae": "base"}, False),
        ({"a": "base", "b": "base"}, False),
    ],
)
def test_a_model_with_new_words_is_blended_with_no_other(tmp_path: Path, recipe: dict[str, Any], refused: bool) -> None:
    params = MergeParams.model_validate({"x": recipe})
    params.verify(tmp_path)
    if refused:
        with pytest.raises(StageError, match=r"merge\.x: blends trained, which will have words of its own"):
            params.verify(tmp_path, learns_words=True)
    else:
        params.verify(tmp_path, learns_words=True)


def test_a_model_in_pieces(kitchen: Kitchen) -> None:
    """As large models are stored: several files and an index."""
    kitchen.put(A, B)
    whole = kitchen.cook("whole", ratio=0.3)
    path = kitchen.trained / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(path)
    path.unlink()
    names = sorted(tensors)
    listed: dict[str, str] = {}
    for number, some in enumerate((names[::2], names[1::2])):
        file = f"diffusion_pytorch_model-{number + 1:05d}-of-00002.safetensors"
        save_file({name: tensors[name] for name in some}, path.with_name(file))
        listed |= dict.fromkeys(some, file)
    path.with_name("diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps({"weight_map": listed}))
    assert_same(kitchen.cook("pieces", ratio=0.3), whole)
    assert_same(read(kitchen.out("pieces")), whole)
