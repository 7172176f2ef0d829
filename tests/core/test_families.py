"""What a family does by itself is what diffusers' own pipeline does."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler

from stages.base.random_families import build
from stages.core.errors import StageError
from stages.core.families.family import load_denoiser, open_encoders, parts_of, tokens_of
from stages.core.families.known import family_of, load_pipeline
from stages.core.objective import open_denoiser
from stages.core.process import load_process
from stages.core.solver import Solver

NAMES = ("tiny", "tiny-sdxl", "tiny-sd3")
PROMPTS = ["a fox", "a cat"]


@pytest.fixture(scope="module", params=NAMES)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(request.param)
    build(request.param, 0).save_pretrained(folder)
    return folder


def embeddings_of(pipeline: Any, prompts: list[str]) -> Any:
    others: dict[str, Any] = {"prompt_2": None, "prompt_3": None} if hasattr(pipeline, "tokenizer_3") else {}
    if not others:
        others = {"device": "cpu", "num_images_per_prompt": 1}
    return pipeline.encode_prompt(prompt=prompts, do_classifier_free_guidance=False, **others)


@torch.no_grad()
def test_captions_are_embedded_as_the_pipeline_does(model: Path) -> None:
    family, pipeline = family_of(model), load_pipeline(model)
    encoders = open_encoders(family, model)
    text = family.embed(encoders, tokens_of(encoders, PROMPTS))
    expected = embeddings_of(pipeline, PROMPTS)
    assert torch.equal(text.embeddings, expected[0])
    if text.pooled is not None:
        assert torch.equal(text.pooled, expected[2])
    widths = text.embeddings.shape[2], 0 if text.pooled is None else text.pooled.shape[1]
    assert family.text_shape(load_denoiser(family, model)) == widths


@torch.no_grad()
def test_latents_are_drawn_as_the_pipeline_draws_them(model: Path) -> None:
    """With guidance, and twice with the same solver: it keeps nothing from the first time."""
    family, pipeline, denoiser = family_of(model), load_pipeline(model), open_denoiser(model)
    if not hasattr(pipeline, "transformer"):
        pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config, clip_sample=False)
    pipeline.set_progress_bar_config(disable=True)
    noise = [torch.randn((1, denoiser.network.config.in_channels, 4, 4), generator=seeded(n)) for n in (5, 6)]
    expected = pipeline(
        PROMPTS,
        negative_prompt=["bad"] * 2,
        num_inference_steps=4,
        guidance_scale=3.0,
        height=32,
        width=32,
        output_type="latent",
        generator=[seeded(5), seeded(6)],
    ).images
    encoders, solver = open_encoders(family, model), Solver(model, 4)
    text, away = (family.embed(encoders, tokens_of(encoders, words)) for words in (PROMPTS, ["bad"] * 2))
    frames = torch.tensor([[32.0, 32, 0, 0, 32, 32]] * 2)
    for _ in range(2):
        drawn = solver.solve(denoiser, torch.cat(noise), text, away, frames, 3.0)
        torch.testing.assert_close(drawn, expected, atol=2e-5, rtol=1e-5)


def seeded(number: int) -> torch.Generator:
    return torch.Generator().manual_seed(number)


@torch.no_grad()
def test_no_noise_or_noise_alone_is_its_own(model: Path) -> None:
    """Noised and answered truly, latents come back: z_0 from z_t and the target, worked out from the definitions."""
    process = load_process(model)
    z, noise = torch.randn((3, 4, 2, 2), generator=seeded(0)), torch.randn((3, 4, 2, 2), generator=seeded(1))
    timesteps = process.timesteps(torch.tensor([0.02, 0.5, 0.97]))
    noised, target = process.noised(z, noise, timesteps), process.target(z, noise, timesteps)
    ratio = process.snr(timesteps).view(-1, 1, 1, 1).double()
    if process.kind == "flow":
        sigma = 1 / (1 + ratio.sqrt())
        back = noised - sigma * target
    else:
        signal, rest = (ratio / (1 + ratio)).sqrt(), (1 / (1 + ratio)).sqrt()
        back = signal * noised - rest * target if process.kind == "v_prediction" else (noised - rest * target) / signal
    torch.testing.assert_close(back.float(), z, atol=2e-4, rtol=1e-3)
    assert (process.snr(timesteps).diff() < 0).all()


def test_the_solver_starts_at_the_nearest_step(model: Path) -> None:
    solver = Solver(model, 50)
    for level in (0.2, 0.3, 0.8):
        chosen = float(solver.timesteps[solver.nearest(level)])
        assert min(abs(float(step) - 1000 * level) for step in solver.timesteps) == abs(chosen - 1000 * level)


@torch.no_grad()
def test_stable_diffusion_3_without_t5(tmp_path: Path) -> None:
    """As the pipeline has it: zeros in T5's place, here kept narrow until the transformer reads them."""
    build("tiny-sd3", 0).save_pretrained(tmp_path)
    for part in ("text_encoder_3", "tokenizer_3"):
        shutil.rmtree(tmp_path / part)
    family, pipeline, denoiser = family_of(tmp_path), load_pipeline(tmp_path), open_denoiser(tmp_path)
    encoders = open_encoders(family, tmp_path)
    assert [encoder.name for encoder in encoders] == ["text_encoder", "text_encoder_2"]
    text = family.embed(encoders, tokens_of(encoders, PROMPTS))
    embeddings, _, pooled, _ = embeddings_of(pipeline, PROMPTS)
    noised, timesteps = torch.randn((2, 16, 4, 4), generator=seeded(0)), torch.tensor([400.0, 700.0])
    expected = denoiser.network(noised, embeddings, pooled, timesteps).sample
    answer = family.answer(denoiser.network, noised, timesteps, text, torch.zeros(2, 6))
    torch.testing.assert_close(answer, expected, atol=1e-6, rtol=1e-5)


def test_other_pipelines_are_refused(tmp_path: Path) -> None:
    with pytest.raises(StageError, match="is no diffusers folder"):
        family_of(tmp_path)
    (tmp_path / "model_index.json").write_text('{"_class_name": "FluxPipeline"}')
    with pytest.raises(StageError, match="is a FluxPipeline; use one of StableDiffusionPipeline"):
        family_of(tmp_path)


def test_parts_are_those_of_the_folder(model: Path) -> None:
    assert set(parts_of(family_of(model))) == {path.name for path in model.iterdir() if path.is_dir()}
