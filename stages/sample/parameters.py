"""The text in a PNG that other programs read settings from (AUTOMATIC1111's `parameters`)."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stages.core.schedulers import Sampler


@dataclass(frozen=True)
class Hashes:
    """What the pictures were drawn with. name: of the model's folder. model: sha256 of the denoiser's file.

    adapter, controlnet: sha256 of what they hold; "" where there is none.
    """

    name: str
    model: str
    adapter: str = ""
    controlnet: str = ""


def parameters_text(about: Mapping[str, Any], sampler: Sampler, hashes: Hashes) -> str:
    """Prompt, negative prompt if there is one, then one line of settings; odd values are JSON strings.

    about: as in samples.json. A seed names torch's CPU noise, whatever the device: `RNG: CPU`.
    """
    settings: dict[str, Any] = {"Steps": about["steps"], "Sampler": sampler.label}
    if sampler.karras:
        settings["Schedule type"] = "Karras"
    settings |= {
        "CFG scale": about["guidance"],
        "Seed": about["seed"],
        "Size": f"{about['width']}x{about['height']}",
        "Model hash": hashes.model[:10],
        "Model": hashes.name,
    }
    if "strength" in about:
        settings["Denoising strength"] = about["strength"]
    if "condition" in about:
        # The unit's key "Model" is left out: readers that cut at commas would take it for the picture's own.
        module = about["condition"] if "image" in about else "none"
        settings["ControlNet 0"] = f"Module: {module}, Weight: {about['control_strength']}"
        settings["ControlNet hash"] = hashes.controlnet[:8]
    if "adapter_strength" in about:
        settings["Lora hashes"] = f"adapter: {hashes.adapter[:12]}"
        settings["Lora strength"] = about["adapter_strength"]
    settings["RNG"] = "CPU"
    lines = [about["prompt"]]
    if about["negative"]:
        lines.append(f"Negative prompt: {about['negative']}")
    lines.append(", ".join(f"{name}: {_quoted(str(value))}" for name, value in settings.items()))
    return "\n".join(lines)


def _quoted(value: str) -> str:
    return json.dumps(value, ensure_ascii=False) if any(mark in value for mark in ",:\n") else value
