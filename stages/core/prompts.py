"""Prompts with weights, and prompts longer than an encoder reads, by compel.

Weights in compel's syntax, `(red apple)1.3`, `apple++`, `("a fox", "a cat").blend(0.7, 0.3)`, or AUTOMATIC1111's,
`(red apple:1.3)`. A long prompt is read in pieces, cut at commas and stops, that lie one after another.
"""

import re
from typing import Any

import torch

from stages.core.errors import StageError
from stages.core.families.family import T5_TOKENS, Text
from stages.core.families.sd3 import StableDiffusion3
from stages.core.families.sdxl import StableDiffusionXL
from stages.core.texts import family_of_pipeline, plain_text

# What may be syntax: compel's parser takes milliseconds, and importing it seconds.
_MARKS = re.compile(r"[\w)\"'>][+-]+(?!\w)|\)\d|\)\.\d|\.(?:blend|and|swap)\(|:\s*\d*\.?\d+\s*\)")
_ESCAPED = re.compile(r'\\([()"+\-])')  # marks that are meant as they stand
_WEIGHT = re.compile(r":\s*(\d*\.?\d+)\s*$")  # AUTOMATIC1111's, at the end of brackets


def read_prompt(pipeline: Any, text: str) -> Text:
    """What the denoiser reads of a prompt, B = 1; one without syntax that isn't too long as diffusers reads it.

    A backslash before a mark makes it a plain one: `C\\+\\+`, as both programs have it.

    Raises StageError for Stable Diffusion 3, which has no reading of either, and for what compel can't say in a text.
    """
    weighted = _MARKS.search(text) is not None and _weighted(text)
    text = text if weighted else _ESCAPED.sub(r"\1", text)
    if not weighted and not _too_long(pipeline, text):
        return plain_text(pipeline, text)
    if isinstance(family_of_pipeline(pipeline), StableDiffusion3):
        what = "has weights" if weighted else f"is longer than {T5_TOKENS} tokens, or 77 without T5"
        raise StageError(f"prompt {text!r}", f"{what}, and Stable Diffusion 3 doesn't know that", "make it plain")
    return _read_by_compel(pipeline, compel_syntax(text) if weighted else _escaped(text))


def compel_syntax(text: str) -> str:
    """AUTOMATIC1111's weights as compel's: `((red:1.2) fox:0.5)` is `((red)1.2 fox)0.5`."""
    written, opened = "", list[int]()
    for mark in text:
        if not written.endswith("\\"):
            if mark == "(":
                opened.append(len(written))
            elif mark == ")" and opened and (weight := _WEIGHT.search(written, opened.pop())):
                written = f"{written[: weight.start()]}){weight[1]}"
                continue
        written += mark
    return written


def _escaped(text: str) -> str:
    """As compel has to be told it, so that it takes nothing for syntax."""
    return re.sub(r'([()"+\-\\])', r"\\\1", text)


def _weighted(text: str) -> bool:
    """Whether compel finds anything but a plain text. Raises StageError for `.swap()`, which needs other attention."""
    from compel.prompt_parser import Fragment

    parsed = _parsed(text)
    parts = [part for prompt in parsed.prompts for part in getattr(prompt, "children", [None])]
    if any(part is not None and not isinstance(part, Fragment) for part in parts):
        raise StageError(f"prompt {text!r}", ".swap() can't be read", "say what is to be drawn")
    return len(parsed.prompts) > 1 or any(part is None or part.weight != 1 for part in parts)


def _parsed(text: str) -> Any:
    from compel import Compel

    try:
        return Compel.parse_prompt_string(compel_syntax(text))
    except Exception as error:  # noqa: BLE001 - pyparsing and compel raise several kinds
        said = str(error).splitlines()[0]
        raise StageError(f"prompt {text!r}", f"can't be read as compel's syntax ({said})", "see the guide") from None


def _too_long(pipeline: Any, text: str) -> bool:
    if isinstance(family_of_pipeline(pipeline), StableDiffusion3) and pipeline.text_encoder_3 is not None:
        return len(pipeline.tokenizer_3(text).input_ids) > T5_TOKENS
    tokenizer = pipeline.tokenizer
    most: int = tokenizer.model_max_length
    return len(tokenizer(_told(pipeline, text, tokenizer)).input_ids) > most


def _told(pipeline: Any, text: str, tokenizer: Any) -> str:
    """A learned word of several vectors as the several tokens that it is."""
    told: str = pipeline.maybe_convert_prompt(text, tokenizer) if hasattr(pipeline, "maybe_convert_prompt") else text
    return told


@torch.no_grad()
def _read_by_compel(pipeline: Any, text: str) -> Text:
    """Stable Diffusion 1 and 2's one encoder, or XL's two side by side, with the pooled text of the plain words."""
    from compel import Compel, ReturnedEmbeddingsType
    from compel.embeddings_provider import SplitLongTextMode

    xl = isinstance(family_of_pipeline(pipeline), StableDiffusionXL)
    layer = "PENULTIMATE_HIDDEN_STATES_NON_NORMALIZED" if xl else "LAST_HIDDEN_STATES_NORMALIZED"
    read = []
    for ending in ("", "_2") if xl else ("",):
        tokenizer, encoder = getattr(pipeline, f"tokenizer{ending}"), getattr(pipeline, f"text_encoder{ending}")
        compel = Compel(
            tokenizer,
            encoder,
            truncate_long_prompts=False,
            returned_embeddings_type=ReturnedEmbeddingsType[layer],
            split_long_text_mode=SplitLongTextMode.PHRASES,
        )
        embeddings = compel.build_conditioning_tensor(_told(pipeline, text, tokenizer))
        read.append((embeddings, compel.conditioning_provider.empty_z))
    length = max(embeddings.shape[1] for embeddings, _ in read)
    filled = [
        torch.cat([embeddings, *[empty] * ((length - embeddings.shape[1]) // empty.shape[1])], dim=1)
        for embeddings, empty in read
    ]
    pooled = plain_text(pipeline, _words(text)).pooled if xl else None
    return Text(torch.cat(filled, dim=2), pooled)


def _words(text: str) -> str:
    """Without weights."""
    parsed = _parsed(text)
    flat = [part for prompt in parsed.prompts for part in getattr(prompt, "prompts", [prompt])]
    return " ".join(fragment.text for prompt in flat for fragment in prompt.children)
