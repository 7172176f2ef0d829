"""clean: what is good enough to learn from."""

from typing import Literal

from pydantic import Field, field_validator

from stages.clean.filters import parse_filter
from stages.core.params import Section


class Captions(Section):
    min_words: int = Field(1, ge=1, description="words")
    max_words: int = Field(60, ge=1, description="words; CLIP reads 77 tokens")
    min_characters: int = Field(2, ge=1, description="characters, after repair")
    max_characters: int = Field(400, ge=1, description="characters, after repair")
    refuse: list[Literal["email", "entity", "file_name", "html", "mojibake", "phone", "url"]] = Field(
        default=["email", "file_name", "html", "phone", "url"],
        description="captions that came with one of these; entity and mojibake are repaired, so they may stay",
    )
    languages: list[str] = Field(default=[], description="ISO 639-1, such as en: others are refused; empty: any")
    language_confidence: float = Field(
        0.8, ge=0, le=1, description="from which on another language is believed; two words are rarely enough"
    )
    min_similarity: float | None = Field(
        None, ge=-1, le=1, description="of picture and caption, by the CLIP of score.clip; 0.28 is LAION's; null: any"
    )
    max_repeats: int | None = Field(
        None, ge=1, description="pictures that have the same caption, in the data as it came; null: any number"
    )


class Duplicates(Section):
    radius: int = Field(
        6, ge=0, le=8, description="bits of 64 by which two perceptual hashes (phash) may differ; 0: equal hashes only"
    )
    confirm_radius: int = Field(
        4, ge=0, le=64, description="bits by which the second, independent hash (dhash) may differ"
    )
    mirrored: bool = Field(False, description="mirrored copies are duplicates too")
    merge_captions: bool = Field(False, description="the one that stays gets the captions of those that go")
    prefer_caption: Literal["longest", "shortest"] = Field(
        "longest", description="of duplicates with as many pixels, the one with this caption stays"
    )


class CleanParams(Section):
    codes: list[Literal["ok", "animated", "missing_eoi"]] = Field(
        default=["ok", "animated", "missing_eoi"],
        description="of decoding, that pass; animated: the first frame is taken; missing_eoi: a JPEG without its end",
    )
    min_side: int = Field(64, ge=1, description="px, of the shorter side")
    max_aspect: float = Field(3.0, ge=1, description="longer side over shorter side")
    min_entropy: float = Field(0.15, ge=0, le=8, description="bits, of the grey levels; 0 is a single grey")
    min_sharpness: float = Field(
        0.0, ge=0, description="variance of the Laplacian at 256 px, grey levels squared; docs/guide.md has examples"
    )
    min_contrast: float = Field(0.0, ge=0, le=1, description="standard deviation of grey")
    max_border: float = Field(1.0, ge=0, le=1, description="share of the area in edge rows and columns of one grey")
    max_transparent: float = Field(0.98, ge=0, le=1, description="share of transparent pixels")
    filters: list[str] = Field(
        default=[],
        description="conditions on measures, scores and carried fields: NAME < NUMBER (or <=, >, >=, ==, !=), "
        "NAME ~ PATTERN with * and ?; a picture that lacks NAME fails, unless the condition ends with `or missing`",
    )
    captions: Captions = Captions()
    duplicates: Duplicates = Duplicates()
    balance: dict[str, int] = Field(
        default={}, description="pictures at most with the same source, caption (the first) or carried field"
    )
    validation_share: float = Field(0.05, ge=0, lt=1, description="share of the groups held out of training")
    validation_count: int | None = Field(
        None, ge=0, description="pictures held out instead, and as many more as their groups have; null: by share"
    )
    seed: int = Field(0, ge=0, description="of the validation draw and the balance")

    @field_validator("filters")
    @classmethod
    def _can_be_read(cls, filters: list[str]) -> list[str]:
        for text in filters:
            parse_filter(text)
        return filters

    @field_validator("balance")
    @classmethod
    def _leaves_some(cls, balance: dict[str, int]) -> dict[str, int]:
        if any(most < 1 for most in balance.values()):
            raise ValueError("has to leave 1 picture at least")
        return balance
