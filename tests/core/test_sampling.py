"""Drawing: as diffusers draws, and nothing beside a picture changes it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import ControlNetModel, StableDiffusionControlNetPipeline, StableDiffusionXLControlNetPipeline
from PIL import Image

from stages.base.random_families import build
from stages.core.errors import StageError
from stages.core.families.known import load_pipeline
from stages.core.sampling import Drawing, Start, draw, side_of
from stages.core.schedulers import FLOWS, SAMPLERS, make_scheduler, nearest_start
from tests.pictures import drawing

FAMILIES = ("tiny", "tiny-sdxl", "tiny-sd3")
SIZE = (32, 32)


@pytest.fixture(scope="module")
def pipelines(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    opened = {}
    for name in FAMILIES:
        folder = tmp_path_factory.mktemp(name)
        build(name, 0).save_pretrained(folder)
        opened[name] = load_pipeline(folder)
        opened[name].set_progress_bar_config(disable=True)
    return opened


def apart(one: Image.Image, other: Image.Image) -> int:
    """The largest difference, grey levels."""
    return int(np.abs(np.asarray(one, dtype=int) - np.asarray(other, dtype=int)).max())


def samplers_of(family: str) -> list[str]:
    return sorted(FLOWS) if family == "tiny-sd3" else sorted(SAMPLERS)


CASES = [(family, name) for family in FAMILIES for name in samplers_of(family)]


@pytest.mark.parametrize(("family", "name"), CASES)
def test_as_the_pipelines_own_call(pipelines: dict[str, Any], family: str, name: str) -> None:
    pipeline = pipelines[family]
    drawings = [Drawing("a fox", seed, SIZE, 3, 4.0, "a cat", name) for seed in (0, 1)]
    own = pipeline.scheduler
    pipeline.scheduler = make_scheduler(own, name, 3)
    theirs = pipeline(
        ["a fox"] * 2,
        negative_prompt=["a cat"] * 2,
        num_inference_steps=3,
        guidance_scale=4.0,
        width=32,
        height=32,
        generator=[torch.Generator().manual_seed(seed) for seed in (0, 1)],
    ).images
    pipeline.scheduler = own
    assert max(apart(*pair) for pair in zip(draw(pipeline, drawings, 2), theirs, strict=True)) <= 1


@pytest.mark.parametrize(("family", "name"), CASES)
def test_a_picture_is_the_same_whatever_is_drawn_beside_it(pipelines: dict[str, Any], family: str, name: str) -> None:
    texts = ["a cat", "a dog", "a fox"]
    drawings = [Drawing(texts[seed % 3], seed, SIZE, 3, scheduler=name) for seed in range(7)]
    alone, *others = (draw(pipelines[family], drawings, size) for size in (1, 4, 7))
    for together in others:
        assert max(apart(*pair) for pair in zip(alone, together, strict=True)) <= 2
    assert len({picture.tobytes() for picture in alone}) == 7


def test_the_lists_order_changes_no_byte(pipelines: dict[str, Any]) -> None:
    drawings = [Drawing("a fox", seed, SIZE, 2, 1.0 + seed % 2, scheduler="euler_a") for seed in range(7)]
    forth, back = draw(pipelines["tiny"], drawings, 2), draw(pipelines["tiny"], drawings[::-1], 2)
    assert [picture.tobytes() for picture in forth] == [picture.tobytes() for picture in back[::-1]]


@pytest.mark.parametrize(("family", "name"), CASES)
@pytest.mark.parametrize("steps", [1, 2, 12])
def test_few_steps_end_in_finite_latents(pipelines: dict[str, Any], family: str, name: str, steps: int) -> None:
    scheduler = make_scheduler(pipelines[family].scheduler, name, steps)
    torch.manual_seed(0)
    latents = torch.randn(1, 4, 4, 4) * getattr(scheduler, "init_noise_sigma", 1.0)
    generators = {"generator": [torch.Generator()]} if name in ("ddpm", "euler_a", "dpm2_a") else {}
    for timestep in scheduler.timesteps:
        latents = scheduler.step(torch.zeros_like(latents), timestep, latents, **generators).prev_sample
    assert latents.isfinite().all()


def test_no_sampler_cuts_latents(pipelines: dict[str, Any]) -> None:
    """Stable Diffusion XL's own sampler has no word for it, and the default of DDIM and DDPM is to cut at 1."""
    own = pipelines["tiny-sdxl"].scheduler
    assert "clip_sample" not in own.config
    for name in SAMPLERS:
        config = make_scheduler(own, name, 4).config
        assert not config.get("clip_sample"), name
        assert not config.get("thresholding"), name
        assert config.prediction_type == own.config.prediction_type
        assert config.timestep_spacing == own.config.timestep_spacing or name == "lcm"


def test_a_sampler_says_itself_how_it_spaces_noise(pipelines: dict[str, Any]) -> None:
    """Of a model whose own sampler spaces as Karras does, the plain one doesn't."""
    karras = make_scheduler(pipelines["tiny"].scheduler, "dpm++_2m_karras", 8)
    plain = make_scheduler(karras, "dpm++_2m", 8)
    assert not torch.allclose(plain.sigmas, karras.sigmas)
    assert torch.allclose(plain.sigmas, make_scheduler(pipelines["tiny"].scheduler, "dpm++_2m", 8).sigmas)


def test_what_a_model_has_no_sampler_for_is_refused(pipelines: dict[str, Any]) -> None:
    with pytest.raises(StageError, match="unipc is no sampler of a flow; use ddim, euler, heun"):
        make_scheduler(pipelines["tiny-sd3"].scheduler, "unipc", 2)
    own = pipelines["tiny"].scheduler
    zero = type(own).from_config(own.config, rescale_betas_zero_snr=True, timestep_spacing="trailing")
    for name in ("heun", "pndm", "dpm2", "dpm++_2m_karras"):
        with pytest.raises(StageError, match="zero terminal SNR"):
            make_scheduler(zero, name, 2)
    assert make_scheduler(zero, "euler", 2).config.rescale_betas_zero_snr


@pytest.mark.parametrize(("family", "name"), [case for case in CASES if case[1] != "pndm"])
def test_a_start_is_the_step_nearest_to_its_level(pipelines: dict[str, Any], family: str, name: str) -> None:
    """0.29 of 100 steps is 29, where truncating 0.29 * 100 gives 28."""
    scheduler = make_scheduler(pipelines[family].scheduler, name, 20)
    for level in (0.01, 0.29, 0.5, 1.0):
        begun = nearest_start(scheduler, level)
        distances = (scheduler.timesteps.double() - 1000 * level).abs()
        assert begun % scheduler.order == 0
        assert distances[begun] <= distances[:: scheduler.order].min()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_level_of_almost_nothing_gives_the_picture_back(pipelines: dict[str, Any], family: str) -> None:
    pipeline = pipelines[family]
    start = drawing(3, SIZE)
    for name in samplers_of(family):
        if name == "pndm":
            continue
        near, far = (
            draw(pipeline, [Drawing("a fox", 0, SIZE, 20, 1.0, scheduler=name, start=Start(start, level))], 1)[0]
            for level in (0.001, 0.9)
        )
        assert apart(near, decoded(pipeline, start)) < apart(far, decoded(pipeline, start)), name


def test_each_begins_with_its_own_picture(pipelines: dict[str, Any]) -> None:
    one, other = drawing(1, SIZE), drawing(2, SIZE)
    starts = [Start(picture, 0.1) for picture in (one, other, one)]
    drawings = [Drawing("a fox", seed, SIZE, 10, start=start) for seed, start in enumerate(starts)]
    together = draw(pipelines["tiny"], drawings, 3)
    for drawn, alone in zip(together, (draw(pipelines["tiny"], [one], 1)[0] for one in drawings), strict=True):
        assert apart(drawn, alone) <= 2


def decoded(pipeline: Any, picture: Image.Image) -> Image.Image:
    """What the VAE alone makes of it."""
    with torch.no_grad():
        pixels = pipeline.image_processor.preprocess([picture])
        back = pipeline.vae.decode(pipeline.vae.encode(pixels).latent_dist.mode()).sample
    image: Image.Image = pipeline.image_processor.postprocess(back, output_type="pil")[0]
    return image


def test_a_sampler_that_counts_its_first_step_twice_begins_with_noise(pipelines: dict[str, Any]) -> None:
    with pytest.raises(StageError, match="pndm can't begin with a picture"):
        draw(pipelines["tiny"], [Drawing("", 0, SIZE, 3, scheduler="pndm", start=Start(drawing(1, SIZE), 0.5))], 1)


@pytest.mark.parametrize(("family", "name"), [case for case in CASES if case[1] != "pndm"])
def test_outside_the_mask_every_pixel_stays(pipelines: dict[str, Any], family: str, name: str) -> None:
    picture = drawing(5, SIZE)
    mask = Image.new("L", SIZE)
    mask.paste(255, (9, 9, 20, 20))
    start = Start(picture, 0.8, mask)
    (drawn,) = draw(pipelines[family], [Drawing("a fox", 0, SIZE, 4, scheduler=name, start=start)], 1)
    same = np.asarray(drawn) == np.asarray(picture)
    inside = np.asarray(mask) > 0
    assert same[~inside].all()
    assert not same[inside].all()


def test_latents_outside_the_mask_end_as_they_began(pipelines: dict[str, Any]) -> None:
    """What is drawn is told of the picture around it: the mask that is nowhere gives the VAE's own picture back."""
    picture, pipeline = drawing(5, SIZE), pipelines["tiny"]
    nowhere = Start(picture, 1.0, Image.new("L", SIZE))
    everywhere = Start(picture, 1.0, Image.new("L", SIZE, 255))
    alone = Start(picture, 1.0)
    kept, changed, plain = (
        draw(pipeline, [Drawing("a fox", 0, SIZE, 4, start=start)], 1)[0] for start in (nowhere, everywhere, alone)
    )
    assert kept.tobytes() == picture.tobytes()
    assert changed.tobytes() == plain.tobytes()


@pytest.mark.parametrize("family", ["tiny", "tiny-sdxl"])
def test_a_condition_is_followed_as_diffusers_does(pipelines: dict[str, Any], family: str) -> None:
    pipeline = pipelines[family]
    torch.manual_seed(1)
    network = ControlNetModel.from_unet(pipeline.unet)
    shown = network.controlnet_cond_embedding.conv_out
    for layer in (*network.controlnet_down_blocks, network.controlnet_mid_block, shown):
        torch.nn.init.normal_(layer.weight, std=0.3)
    kind = StableDiffusionXLControlNetPipeline if family == "tiny-sdxl" else StableDiffusionControlNetPipeline
    following = kind.from_pipe(pipeline, controlnet=network)
    following.set_progress_bar_config(disable=True)
    condition = drawing(2, SIZE)
    one = Drawing("a fox", 0, SIZE, 3, 4.0, "a cat", condition=condition, control=0.7)
    own = following.scheduler
    following.scheduler = make_scheduler(own, "ddim", 3)
    theirs = following(
        "a fox",
        negative_prompt="a cat",
        image=condition,
        num_inference_steps=3,
        guidance_scale=4.0,
        controlnet_conditioning_scale=0.7,
        generator=torch.Generator().manual_seed(0),
    ).images[0]
    following.scheduler = own
    (drawn,) = draw(following, [one], 1)
    assert apart(drawn, theirs) <= 1
    plain = Drawing("a fox", 0, SIZE, 3, 4.0, "a cat")
    assert apart(drawn, draw(following, [plain], 1)[0]) > 1


def test_sizes_may_differ_and_need_not_be_square(pipelines: dict[str, Any]) -> None:
    drawn = draw(pipelines["tiny"], [Drawing("a fox", 0, size, 2) for size in ((32, 48), (48, 32), (32, 32))], 3)
    assert [picture.size for picture in drawn] == [(32, 48), (48, 32), (32, 32)]
    assert side_of(pipelines["tiny-sd3"]) == 32


def test_models_with_their_own_files(pipelines: dict[str, Any], tmp_path: Path) -> None:
    """Drawing leaves the model's own scheduler as it was."""
    pipeline = pipelines["tiny"]
    before = dict(pipeline.scheduler.config)
    draw(pipeline, [Drawing("a fox", 0, SIZE, 2, scheduler=name) for name in SAMPLERS], 2)
    assert dict(pipeline.scheduler.config) == before


def test_samplers_without_noise_solve_one_equation(pipelines: dict[str, Any]) -> None:
    """The probability flow (Song et al., arXiv 2011.13456, section 4.3): with small steps all come to one picture."""
    noisy = ("ddpm", "euler_a", "dpm2_a", "dpm++_2m_sde", "dpm++_2m_sde_karras", "lcm")

    def drawn(name: str, steps: int) -> Any:
        one = Drawing("a fox", 0, SIZE, steps, 2.0, scheduler=name)
        return np.asarray(draw(pipelines["tiny"], [one], 1)[0], dtype=int)

    solved = drawn("ddim", 120)
    for name in SAMPLERS:
        apart = np.abs(drawn(name, 24) - solved).mean()
        assert apart > 6 if name in noisy else apart < 3, (name, apart)
