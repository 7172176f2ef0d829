"""The stage sample: settings a picture, modes, adapters, safety."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import ControlNetModel
from PIL import Image
from pydantic import ValidationError
from safetensors.torch import save_file
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessorPil

from stages.base.random_families import build
from stages.check.run import main as check
from stages.core.errors import StageError
from stages.core.params import parse_section
from stages.sample.listed import pictures_of, read_lines
from stages.sample.params import Picture, SampleParams
from stages.sample.run import main
from tests.conftest import ROOT
from tests.pictures import drawing

FAMILIES = ("tiny", "tiny-sdxl", "tiny-sd3")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of each family; `follows` has a ControlNet, `adapted` a LoRA that its weights hold already."""
    folder = tmp_path_factory.mktemp("models")
    for name in FAMILIES:
        build(name, 0).save_pretrained(folder / name)
    follows = build("tiny", 0)
    follows.save_pretrained(folder / "follows")
    torch.manual_seed(0)
    network = ControlNetModel.from_unet(follows.unet)
    shown = network.controlnet_cond_embedding.conv_out
    for layer in (*network.controlnet_down_blocks, network.controlnet_mid_block, shown):
        torch.nn.init.normal_(layer.weight, std=0.3)
    network.save_pretrained(folder / "follows" / "controlnet")
    adapted = build("tiny", 0)
    learned: dict[str, torch.Tensor] = {}
    for name, module in adapted.unet.named_modules():
        if name.endswith("to_q"):
            down, up = torch.randn(2, module.in_features), torch.randn(module.out_features, 2)
            learned |= {f"unet.{name}.lora_A.weight": down, f"unet.{name}.lora_B.weight": up}
            module.weight.data += up @ down
    adapted.save_pretrained(folder / "adapted")
    (folder / "adapted" / "adapter").mkdir()
    save_file(learned, folder / "adapted" / "adapter" / "pytorch_lora_weights.safetensors")
    return folder


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    folder = tmp_path / "prompts"
    folder.mkdir()
    drawing(1, (40, 40)).save(folder / "a.png")
    mask = Image.new("L", (40, 40))
    mask.paste(255, (0, 0, 20, 40))
    mask.save(folder / "left.png")
    return folder


@pytest.fixture
def sample(models: Path, prompts: Path, tmp_path: Path) -> Any:
    """Draw by a model; gives what samples.json says, by file, and the folder."""

    def run(model: str, **values: Any) -> tuple[dict[str, Any], Path]:
        params: SampleParams = parse_section(SampleParams, "sample", {"steps": 2, "seeds": [0], **values})
        out = tmp_path / "out" / model
        main(params, models / model, prompts, models, out)
        told = json.loads((out / "samples.json").read_text())
        return {picture["file"]: picture for picture in told["pictures"]}, out

    return run


def pixels(path: Path) -> Any:
    with Image.open(path) as picture:
        return np.asarray(picture).astype(int)


def parameters(path: Path) -> str:
    with Image.open(path) as picture:
        return str(picture.info["parameters"])


def test_the_common_case_is_a_list_of_texts(sample: Any) -> None:
    told, out = sample("tiny", prompts=["a fox", "a cat"], seeds=[0, 7])
    assert list(told) == ["000-0.png", "000-7.png", "001-0.png", "001-7.png"]
    assert told["001-7.png"] == {
        "file": "001-7.png",
        "prompt": "a cat",
        "negative": "",
        "seed": 7,
        "steps": 2,
        "guidance": 5.0,
        "scheduler": "ddim",
        "width": 32,
        "height": 32,
        "mode": "text",
    }
    assert {path.name for path in out.iterdir()} == {*told, "grid.png", "samples.json"}


def test_each_prompt_may_have_its_own_settings(sample: Any, prompts: Path) -> None:
    own = {"prompt": "a cat", "seeds": [3, 4], "negative": "dark", "steps": 3, "guidance": 2, "scheduler": "euler_a"}
    (prompts / "more.jsonl").write_text(
        '{"prompt": "a dog", "seed": 9, "size": [32, 48]}\n\n"just a text"\n', encoding="utf-8"
    )
    told, out = sample("tiny", prompts=["a fox", own], file="more.jsonl")
    assert list(told) == ["000-0.png", "001-3.png", "001-4.png", "002-9.png", "003-0.png"]
    cat, dog, text = (told[name] for name in ("001-4.png", "002-9.png", "003-0.png"))
    assert {name: cat[name] for name in own if name != "seeds"} == {name: own[name] for name in own if name != "seeds"}
    assert (dog["width"], dog["height"]) == pixels(out / "002-9.png").shape[1::-1] == (32, 48)
    assert (text["prompt"], text["steps"]) == ("just a text", 2)


def test_place_and_neighbours_change_no_picture(sample: Any) -> None:
    entries: list[Any] = [
        "a fox",
        {"prompt": "a cat", "steps": 3},
        {"prompt": "a dog", "scheduler": "euler_a"},
        "an owl",
    ]
    _, out = sample("tiny", prompts=entries, batch_size=2)
    forth = [(out / f"{number:03d}-0.png").read_bytes() for number in range(4)]
    _, out = sample("tiny", prompts=entries[::-1], batch_size=2)
    assert forth == [(out / f"{number:03d}-0.png").read_bytes() for number in (3, 2, 1, 0)]


@pytest.mark.parametrize("family", FAMILIES)
def test_every_mode_of_every_family(sample: Any, family: str, prompts: Path) -> None:
    entries = [
        {"prompt": "a fox", "image": "a.png", "strength": 0.5},
        {"prompt": "a fox", "image": "a.png", "mask": "left.png"},
        {"image": "a.png", "mode": "boomerang"},
        {"prompt": "a fox", "condition": "a.png"},
    ]
    told, out = sample(family, prompts=entries)
    modes = {file: (picture["mode"], picture.get("strength")) for file, picture in told.items()}
    assert list(modes.values()) == [("image", 0.5), ("inpaint", 1.0), ("boomerang", 0.3), ("text", None)]
    fitted = np.asarray(drawing(1, (40, 40)).resize((32, 32), Image.Resampling.LANCZOS)).astype(int)
    kept = pixels(out / "001-0.png")[:, 18:]
    assert np.abs(kept - fitted[:, 18:]).max() <= 3  # the resized mask is a little soft at its edge
    assert "Denoising strength: 0.5" in parameters(out / "000-0.png")
    assert told["000-0.png"]["scheduler"] == ("euler" if family == "tiny-sd3" else "ddim")


def test_a_condition_is_followed_and_may_be_made_of_a_picture(sample: Any, capsys: pytest.CaptureFixture[str]) -> None:
    entries = [
        "a fox",
        {"prompt": "a fox", "condition": "a.png"},
        {"prompt": "a fox", "condition": "canny", "image": "a.png"},
        {"prompt": "a fox", "condition": "canny", "image": "a.png", "control_strength": 0.0},
    ]
    told, out = sample("follows", prompts=entries)
    assert [picture["mode"] for picture in told.values()] == ["text", *["controlnet"] * 3]
    plain, as_given, made, unheard = (pixels(out / file) for file in told)
    assert (plain == unheard).all()
    assert len({picture.tobytes() for picture in (plain, as_given, made)}) == 3
    assert "Module: canny, Weight: 1.0" in parameters(out / "002-0.png")
    told, out = sample("tiny", prompts=entries)
    assert all(picture["mode"] == "text" and "condition" not in picture for picture in told.values())
    assert (pixels(out / "001-0.png") == plain).all()
    assert "tiny has no ControlNet: 3 prompts are drawn without their conditions" in capsys.readouterr().out


def test_an_adapters_strength_leads_from_the_base_to_the_trained_and_beyond(
    sample: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    entries: list[Any] = ["a fox", *({"prompt": "a fox", "adapter_strength": value} for value in (0, 0.5, 1, 1.5))]
    told, out = sample("adapted", prompts=entries)
    own, none, half, one, more = (pixels(out / file) for file in told)
    assert (own == one).all()
    assert len({picture.tobytes() for picture in (own, none, half, more)}) == 4
    assert [picture.get("adapter_strength") for picture in told.values()] == [None, 0, 0.5, None, 1.5]
    assert "Lora strength: 0.5" in parameters(out / "002-0.png")
    _, base = sample("tiny", prompts=entries)
    assert np.abs(pixels(base / "000-0.png") - none).max() <= 1
    assert (pixels(base / "000-0.png") == pixels(base / "004-0.png")).all()
    assert "tiny has no adapter: adapter_strength changes nothing" in capsys.readouterr().out


def test_a_strength_of_dora_is_refused(sample: Any, models: Path, tmp_path: Path) -> None:
    folder = models / "adapted" / "adapter"
    file = folder / "pytorch_lora_weights.safetensors"
    kept = file.read_bytes()
    save_file({"unet.x.lora_magnitude_vector": torch.ones(1)}, file)
    try:
        with pytest.raises(StageError, match="is a DoRA"):
            sample("adapted", prompts=[{"prompt": "a fox", "adapter_strength": 0.5}])
    finally:
        file.write_bytes(kept)
    assert not (tmp_path / "out" / "adapted").exists()


@pytest.fixture(scope="module")
def classifier(models: Path) -> Path:
    """Two classes; its bias says the first of every picture, with 0.73."""
    torch.manual_seed(0)
    size = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    named = {"id2label": {0: "unsafe", 1: "safe"}, "label2id": {"unsafe": 0, "safe": 1}}
    model = ViTForImageClassification(ViTConfig(**size, **named, image_size=32, patch_size=8))
    torch.nn.init.zeros_(model.classifier.weight)
    model.classifier.bias.data = torch.tensor([1.0, 0.0])
    model.save_pretrained(models / "judge")
    ViTImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(models / "judge")
    return models / "judge"


def test_flagged_pictures_are_recorded_and_blurred_by_choice(sample: Any, classifier: Path) -> None:
    safety = {"model": f"folder:{classifier.name}", "labels": ["unsafe", "safe"]}
    plain, out = sample("tiny", prompts=["a fox"])
    before = pixels(out / "000-0.png")
    told, out = sample("tiny", prompts=["a fox"], safety=safety)
    assert told["000-0.png"]["flagged"] == ["unsafe"]
    assert (pixels(out / "000-0.png") == before).all()
    told, out = sample("tiny", prompts=["a fox"], safety=safety | {"action": "blur"})
    blurred = pixels(out / "000-0.png")
    assert blurred.std() < before.std()
    assert abs(blurred.mean() - before.mean()) < 3  # blurred, not blackened
    told, out = sample("tiny", prompts=["a fox"], safety=safety | {"action": "blur", "threshold": 0.8})
    assert told == plain
    with pytest.raises(StageError, match="has no class nude; use safe, unsafe"):
        sample("tiny", prompts=["a fox"], safety=safety | {"labels": ["nude"]})
    with pytest.raises(StageError, match=r"safety\.model: the folder .* is missing"):
        sample("tiny", prompts=["a fox"], safety=safety | {"model": "folder:none"})


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"prompt": "a", "guidanc": 3}, "unknown key sample.prompts.0.guidanc; did you mean guidance?"),
        ({"prompt": "a", "steps": 0}, "sample.prompts.0.steps is 0, but input should be greater than or equal to 1"),
        ({"prompt": "a", "mask": "m.png"}, "should name its image: mode inpaint has none without"),
        ({"prompt": "a", "image": "a.png", "mode": "text"}, "should name no image: mode text has no use for it"),
        ({"prompt": "a", "strength": 0.5}, "should have no strength: mode text begins with noise"),
        ({"prompt": "a", "condition": "canny"}, "should name an image, of which the condition canny is made"),
        ({"prompt": "a", "seed": 1, "seeds": [2]}, "should have seed or seeds, not both"),
        ({"prompt": "a", "seeds": [2, 2]}, "should name every seed once"),
        ({"prompt": "a", "image": "../a.png"}, "should match pattern"),
        (3, "sample.prompts.0"),
    ],
)
def test_bad_params_stop_before_any_work(values: Any, said: str) -> None:
    with pytest.raises(StageError) as error:
        parse_section(SampleParams, "sample", {"prompts": [values]})
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"prompt": "a", "guidanc": 3}', "line 2: unknown key guidanc; did you mean guidance?"),
        ('{"prompt": "a", "steps": 2000}', "line 2: steps is 2000, but input should be less than or equal to 1000"),
        ('{"prompt": "a", "mask": "m.png"}', "line 2: should name its image"),
        ('{"prompt": "a"', "line 2: is no JSON"),
        ("[1]", "line 2: is neither an object nor a text"),
        ('{"prompt": "a", "image": "none.png"}', "line 2: the picture"),
    ],
)
def test_faults_of_a_file_name_its_line(prompts: Path, line: str, said: str) -> None:
    (prompts / "list.jsonl").write_text(f'{{"prompt": "a fox"}}\n{line}\n')
    with pytest.raises(StageError) as error:
        pictures_of(SampleParams(prompts=[], file="list.jsonl"), prompts)
    assert str(error.value).startswith(str(prompts / "list.jsonl"))
    assert said in str(error.value)


GRID = "grid: {a: {prompt: a, model: no, x: {name: steps, values: [1]}, y: {name: ratio, values: [1]}}}"


@pytest.mark.parametrize(
    ("found", "replaced", "said"),
    [
        ("sample:", "sample:\n  file: none.jsonl", r"sample\.file: .*none\.jsonl can't be read"),
        ("[a drawing, another]", "[{image: none.png}]", r"sample\.prompts\.0: the picture .*none\.png is missing"),
        ("sample:", "sample:\n  safety: {model: 'folder:none', labels: [x]}", "none is missing; put the model there"),
        ("grid: {}", GRID, r"grid\.a\.model: no model is named no; use base, trained, half"),
    ],
)
def test_check_says_it_before_any_work(in_folder: Path, found: str, replaced: str, said: str) -> None:
    (in_folder / "data" / "sources" / "drawings").mkdir(parents=True)
    others = ("imported", "conditions", "prompts", "out.json")
    places = [in_folder / "data" / "sources", *(in_folder / name for name in others)]
    tiny = (ROOT / "tests" / "tiny.yaml").read_text()
    (in_folder / "params.yaml").write_text(tiny)
    check(*places)
    (in_folder / "params.yaml").write_text(tiny.replace(found, replaced))
    with pytest.raises(StageError, match=said):
        check(*places)


def test_a_plain_file_has_a_text_a_line(prompts: Path) -> None:
    (prompts / "list.txt").write_bytes(b"\xef\xbb\xbfa fox \r\n\r\na {cat}\n")
    assert [picture for _, picture in read_lines(prompts / "list.txt")] == [
        Picture(prompt="a fox"),
        Picture(prompt="a {cat}"),
    ]
    (prompts / "list.txt").write_text("\n \n")
    with pytest.raises(StageError, match="holds no prompt"):
        read_lines(prompts / "list.txt")
    with pytest.raises(StageError, match=r"sample\.file"):
        read_lines(prompts / "none.txt")
    with pytest.raises(ValidationError, match="should be named where prompts are empty"):
        SampleParams(prompts=[])


def test_what_is_no_picture_is_said(sample: Any, prompts: Path) -> None:
    (prompts / "b.png").write_bytes(b"no picture")
    with pytest.raises(StageError, match=r"b\.png: can't be opened \(unreadable\)"):
        sample("tiny", prompts=[{"image": "b.png"}])
