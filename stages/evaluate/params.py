"""evaluate: how models are compared."""

from pathlib import Path

from pydantic import Field

from stages.core.params import Section
from stages.core.places import place_of

FOLDER = r"folder:[\w-][\w.-]*"


class EvaluateParams(Section):
    pictures: int = Field(256, ge=2, description="held-out pictures that models are measured on, at most")
    bins: int = Field(10, ge=1, le=100, description="timesteps at which the validation loss is measured")
    seed: int = Field(0, ge=0, description="of its noise, and of the intervals")
    extractor: str = Field(
        "classical",
        pattern=rf"^(classical|vae|(clip|model):{FOLDER}|clip:tiny-sd)$",
        description="what turns pictures into features for kid, precision, recall and diversity: classical "
        "(colours, edges, fineness: no weights), vae (the base's encoder), clip:tiny-sd, clip:folder:NAME or "
        "model:folder:NAME (any picture model of transformers, for instance DINOv2) in models/imported",
    )
    clip: str = Field(
        "tiny-sd",
        pattern=rf"^(|tiny-sd|{FOLDER})$",
        description="the CLIP for clip_score, retrieval and likeness: tiny-sd, which comes with the project and knows "
        "emoji, or folder:NAME in models/imported; empty: none",
    )
    neighbours: int = Field(3, ge=1, description="k of precision and recall")
    training_pictures: int | None = Field(
        None, ge=1, description="that samples are compared with to find copies, chosen by key; null: all"
    )

    def folder_of(self, name: str, imported: Path, shipped: Path, knob: str) -> str:
        """The folder of tiny-sd or folder:NAME. Raises StageError."""
        return str(shipped) if name == "tiny-sd" else place_of(name, imported, knob)[0]
