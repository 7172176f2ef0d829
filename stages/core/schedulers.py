"""Samplers by name, with what each has to be told to be right for latent diffusion.

Every one keeps the model's own noise schedule, prediction type and spacing of timesteps.
"""

import inspect
from dataclasses import dataclass, field
from typing import Any

from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    FlowMatchHeunDiscreteScheduler,
    HeunDiscreteScheduler,
    KDPM2AncestralDiscreteScheduler,
    KDPM2DiscreteScheduler,
    LCMScheduler,
    PNDMScheduler,
    UniPCMultistepScheduler,
)

from stages.core.errors import StageError


@dataclass(frozen=True)
class Sampler:
    """One sampler. label: AUTOMATIC1111's name. settings: beside the model's own. karras: levels of noise as Karras
    et al. (arXiv 2206.00364, eq. 5) space them. halfway: whether it can begin at a step that isn't the first."""

    kind: Any
    label: str
    settings: dict[str, Any] = field(default_factory=dict)
    karras: bool = False
    halfway: bool = True


# Latents reach beyond 1, where DDIM and DDPM would cut them if the model's file doesn't say otherwise.
_WHOLE = {"clip_sample": False, "thresholding": False}
_PLAIN = {"use_karras_sigmas": False}
# Where the last step starts from is noise still: a first-order step to no noise at all (Lu et al., arXiv 2211.01095).
_DPM = {"solver_order": 2, "final_sigmas_type": "zero", "lower_order_final": True, "thresholding": False}
_ODE = _DPM | {"algorithm_type": "dpmsolver++"}
_SDE = _DPM | {"algorithm_type": "sde-dpmsolver++"}

SAMPLERS: dict[str, Sampler] = {
    "ddim": Sampler(DDIMScheduler, "DDIM", _WHOLE),
    "ddpm": Sampler(DDPMScheduler, "DDPM", _WHOLE),
    # Its first step counts twice, wherever it begins: begun halfway it would end with noise left.
    "pndm": Sampler(PNDMScheduler, "PLMS", {"skip_prk_steps": True}, halfway=False),
    "euler": Sampler(EulerDiscreteScheduler, "Euler", _PLAIN),
    "euler_a": Sampler(EulerAncestralDiscreteScheduler, "Euler a"),
    "heun": Sampler(HeunDiscreteScheduler, "Heun", _PLAIN | {"clip_sample": False}),
    "dpm2": Sampler(KDPM2DiscreteScheduler, "DPM2", _PLAIN),
    "dpm2_a": Sampler(KDPM2AncestralDiscreteScheduler, "DPM2 a", _PLAIN),
    "dpm++_2m": Sampler(DPMSolverMultistepScheduler, "DPM++ 2M", _ODE | _PLAIN),
    "dpm++_2m_karras": Sampler(DPMSolverMultistepScheduler, "DPM++ 2M", _ODE | {"use_karras_sigmas": True}, True),
    "dpm++_2m_sde": Sampler(DPMSolverMultistepScheduler, "DPM++ 2M SDE", _SDE | _PLAIN),
    "dpm++_2m_sde_karras": Sampler(
        DPMSolverMultistepScheduler, "DPM++ 2M SDE", _SDE | {"use_karras_sigmas": True}, True
    ),
    "unipc": Sampler(UniPCMultistepScheduler, "UniPC", _PLAIN | {"thresholding": False}),
    "lcm": Sampler(LCMScheduler, "LCM", _WHOLE),
}
# DDIM of a flow is Euler's method: both take straight steps along the same line.
FLOWS: dict[str, Sampler] = {
    "ddim": Sampler(FlowMatchEulerDiscreteScheduler, "Euler"),
    "euler": Sampler(FlowMatchEulerDiscreteScheduler, "Euler"),
    "heun": Sampler(FlowMatchHeunDiscreteScheduler, "Heun"),
}


def sampler_of(model: Any, name: str) -> Sampler:
    """The sampler `name` for a model with the scheduler `model`.

    Raises StageError if there is none for its kind or its noise schedule.
    """
    if type(model).__name__.startswith("FlowMatch"):
        if name not in FLOWS:
            raise StageError("scheduler", f"{name} is no sampler of a flow", f"use {', '.join(FLOWS)}")
        return FLOWS[name]
    sampler = SAMPLERS[name]
    if model.config.get("rescale_betas_zero_snr"):
        known = "rescale_betas_zero_snr" in inspect.signature(sampler.kind.__init__).parameters
        if not known or sampler.karras:
            raise StageError(
                "scheduler",
                f"{name} can't start from noise alone, as this model does (zero terminal SNR)",
                "use ddim, euler, euler_a or dpm++_2m",
            )
    return sampler


def make_scheduler(model: Any, name: str, steps: int, device: Any = None) -> Any:
    """A sampler with its timesteps set, made of the model's own scheduler `model`, which stays as it is."""
    sampler = sampler_of(model, name)
    settings = dict(sampler.settings)
    if sampler.kind is LCMScheduler:
        settings["original_inference_steps"] = max(50, steps)  # 50: what it was distilled with (Luo et al. 2310.04378)
    scheduler = sampler.kind.from_config(model.config, **settings)
    scheduler.set_timesteps(steps, device=device)
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(0)
    return scheduler


def nearest_start(scheduler: Any, level: float) -> int:
    """The number of the step whose timestep is nearest to `level` of all, 0 (the picture) to 1 (noise).

    Steps of second order are two entries of `timesteps`; a picture can't begin between the two.
    """
    wanted = level * scheduler.config.num_train_timesteps
    starts = range(0, len(scheduler.timesteps), scheduler.order)
    return min(starts, key=lambda number: abs(float(scheduler.timesteps[number]) - wanted))
