"""clean: what is good enough to learn from."""

from typing import Literal

from pydantic import Field

from stages.core.params import Section


class Captions(Section):
    min_words: int = Field(1, ge=1, description="words")
    max_words: int = Field(60, ge=1, description="words; CLIP reads 77 tokens")
    min_characters: int = Field(2, ge=1, description="characters, after repair")
    max_characters: int = Field(400, ge=1, description="characters, after repair")

    def said(self) -> str:
        """The bounds in words."""
        words, characters = f"{self.min_words} to {self.max_words}", f"{self.min_characters} to {self.max_characters}"
        return f"{words} words, {characters} characters"


class Duplicates(Section):
    radius: int = Field(
        6, ge=0, le=8, description="bits of 64 by which two perceptual hashes (phash) may differ; 0: equal hashes only"
    )
    confirm_radius: int = Field(
        4, ge=0, le=64, description="bits by which the second, independent hash (dhash) may differ"
    )
    prefer_caption: Literal["longest", "shortest"] = Field(
        "longest", description="of duplicates with as many pixels, the one with this caption stays"
    )


class CleanParams(Section):
    min_side: int = Field(64, ge=1, description="px, of the shorter side")
    max_aspect: float = Field(3.0, ge=1, description="longer side over shorter side")
    min_entropy: float = Field(0.15, ge=0, le=8, description="bits, of the grey levels; 0 is a single grey")
    min_sharpness: float = Field(0.0, ge=0, description="variance of the Laplacian, grey levels squared")
    max_transparent: float = Field(0.98, ge=0, le=1, description="share of transparent pixels")
    captions: Captions = Captions()
    duplicates: Duplicates = Duplicates()
    validation_share: float = Field(0.05, ge=0, lt=1, description="share of the groups held out of training")
    seed: int = Field(0, ge=0, description="of the validation draw")
