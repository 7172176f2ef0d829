"""The text in a PNG that other programs read settings from (AUTOMATIC1111's `parameters`)."""

import json

from stages.core.sampling import Drawing
from stages.sample.params import SampleParams

SAMPLERS = {"ddim": "DDIM", "euler": "Euler", "euler_a": "Euler a", "dpm++_2m": "DPM++ 2M", "unipc": "UniPC"}


def parameters_text(params: SampleParams, drawing: Drawing, side: int, weights: str) -> str:
    """Prompt, negative prompt if there is one, then one line of settings; odd values are JSON strings."""
    settings = {
        "Steps": params.steps,
        "Sampler": SAMPLERS[params.scheduler],
        "CFG scale": params.guidance,
        "Seed": drawing.seed,
        "Size": f"{side}x{side}",
        "Model hash": weights[:10],
        "RNG": "CPU",
    }
    lines = [drawing.prompt]
    if params.negative:
        lines.append(f"Negative prompt: {params.negative}")
    lines.append(", ".join(f"{name}: {_quoted(str(value))}" for name, value in settings.items()))
    return "\n".join(lines)


def _quoted(value: str) -> str:
    return json.dumps(value, ensure_ascii=False) if any(mark in value for mark in ",:\n") else value
