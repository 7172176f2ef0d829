"""The settings in a PNG, as other programs read them."""

from pathlib import Path
from typing import Any

import pytest
from PIL.PngImagePlugin import PngInfo
from sd_parsers import ParserManager

from stages.core.schedulers import SAMPLERS
from stages.sample.parameters import Hashes, parameters_text
from tests.pictures import drawing

ABOUT: dict[str, Any] = {
    "prompt": "a cat, sitting",
    "negative": "blurry",
    "steps": 20,
    "guidance": 7.0,
    "seed": 5,
    "width": 64,
    "height": 96,
}
HASHES = Hashes("trained", "0123456789abcdef", "aa11" * 16, "bb22" * 16)


def test_text() -> None:
    assert parameters_text(ABOUT, SAMPLERS["euler_a"], HASHES) == (
        "a cat, sitting\nNegative prompt: blurry\n"
        "Steps: 20, Sampler: Euler a, CFG scale: 7.0, Seed: 5, Size: 64x96, Model hash: 0123456789, Model: trained, "
        "RNG: CPU"
    )
    assert "Negative" not in parameters_text({**ABOUT, "negative": ""}, SAMPLERS["ddim"], HASHES)


def test_text_of_what_only_some_pictures_have() -> None:
    followed = {**ABOUT, "image": "a.png", "condition": "canny", "control_strength": 0.7, "adapter_strength": 0.5}
    assert parameters_text(followed, SAMPLERS["dpm++_2m_karras"], HASHES).endswith(
        "Steps: 20, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 7.0, Seed: 5, Size: 64x96, "
        'Model hash: 0123456789, Model: trained, ControlNet 0: "Module: canny, Weight: 0.7", '
        "ControlNet hash: bb22bb22, "
        'Lora hashes: "adapter: aa11aa11aa11", Lora strength: 0.5, RNG: CPU'
    )
    assert "Denoising strength: 0.6, RNG" in parameters_text({**ABOUT, "strength": 0.6}, SAMPLERS["ddim"], HASHES)


@pytest.mark.parametrize("prompt", ["a cat, sitting", "Steps: 20", 'a "quoted" word: 3', "two\nlines"])
@pytest.mark.parametrize(
    "more",
    [
        {},
        {"strength": 0.6},
        {"condition": "edges.png", "control_strength": 1.0},
        {"image": "a.png", "condition": "canny", "control_strength": 0.7, "adapter_strength": 0.5},
    ],
)
def test_another_program_reads_it_back(tmp_path: Path, prompt: str, more: dict[str, Any]) -> None:
    information = PngInfo()
    text = parameters_text({**ABOUT, "prompt": prompt, **more}, SAMPLERS["dpm++_2m_karras"], HASHES)
    information.add_text("parameters", text)
    drawing(1).save(tmp_path / "a.png", pnginfo=information)
    read = ParserManager().parse(tmp_path / "a.png")
    assert read is not None
    (sampler,) = read.samplers
    assert [one.value for one in sampler.prompts] == [prompt]
    assert [one.value for one in sampler.negative_prompts] == ["blurry"]
    assert sampler.name == "DPM++ 2M"
    assert sampler.parameters == {"scheduler": "Karras", "steps": "20", "cfg_scale": "7.0", "seed": "5"}
    assert sampler.model is not None
    assert (sampler.model.name, sampler.model.hash) == ("trained", "0123456789")
    assert read.metadata["Size"] == "64x96"
    if "strength" in more:
        assert read.metadata["Denoising strength"] == "0.6"
