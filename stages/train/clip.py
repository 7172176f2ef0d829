"""method clip: a tokenizer from the captions; a text and a picture tower that learn which belong together.

Shapes: B pairs, L tokens, D width of both towers' answers.
"""

import json
import shutil
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from tokenizers import Tokenizer, trainers
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel, CLIPTokenizer

from stages.core.draws import seed_of, uniform
from stages.core.errors import StageError
from stages.core.families.family import load_encoder, load_tokenizer
from stages.core.families.sd import StableDiffusion
from stages.core.files import folder_digest, write_json
from stages.core.pixels import Pixels
from stages.train.params import TrainParams

BEGIN, END = "<|startoftext|>", "<|endoftext|>"
PATCHES = 8  # a side: a picture is 64 tokens
RECALL_AMONG = 100
AUGMENTATIONS = ("down", "right", "size", "contrast", "saturation", "ink")


@dataclass
class Clip:
    """Contrastive learning of pairs (Radford et al., arXiv 2103.00020, figure 3).

    Pairs of a batch with the same caption (one motif in two styles) all count as right.
    """

    params: TrainParams
    model: CLIPModel
    tokenizer: CLIPTokenizer
    train: Pixels
    validation: Pixels
    digest: str
    base: Path

    splits = False  # each pair's loss is over all the others of its batch
    frozen = ()

    def __len__(self) -> int:
        return len(self.train)

    @property
    def groups(self) -> Sequence[Sequence[int]]:
        return self.train.groups

    @property
    def rates(self) -> Sequence[tuple[torch.nn.Module, float]]:
        return [(self.model, 1.0)]

    def prepare(self, samples: Sequence[int], rows: Sequence[int]) -> tuple[list[str], dict[str, torch.Tensor]]:
        """Augmented pixels, the tokens of a caption of each, and a number for each distinct caption."""
        keys = [self.train.keys[row] for row in rows]
        seed = self.params.seed
        captions = []
        for row, sample, key in zip(rows, samples, keys, strict=True):
            listed = self.train.captions[row]
            captions.append(listed[seed_of(seed, "caption", sample, key) % len(listed)] if listed else "")
        draws = [[uniform(seed, knob, *name) for knob in AUGMENTATIONS] for name in zip(samples, keys, strict=True)]
        return keys, {
            "pixels": augmented(self.train.read(rows), torch.tensor(draws)),
            "distinct": numbered(captions),
            **self._tokens(captions),
        }

    def losses(self, prepared: dict[str, torch.Tensor]) -> torch.Tensor:
        """The losses (B,): of each text among the pictures and each picture among the texts, halved."""
        return contrastive_losses(self._scores(prepared), prepared["distinct"])

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Loss and recall of held-out pairs: how often a text's best picture among up to 100 is its own."""
        rows = range(min(RECALL_AMONG, self.params.validation_pictures, len(self.validation)))
        if not rows:
            return {}
        captions = [(self.validation.captions[row] or [""])[0] for row in rows]
        told = {"pixels": self.validation.read(rows), **self._tokens(captions)}
        scores = self._scores({name: value.to(self.model.device) for name, value in told.items()}).cpu()
        right = (scores.argmax(dim=1) == torch.arange(len(rows))).float()
        losses = contrastive_losses(scores, numbered(captions))
        return {"loss": float(losses.mean()), "recall": float(right.mean())}

    def preview(self) -> Image.Image | None:
        """Nothing: it draws no pictures."""
        return None

    def _tokens(self, captions: list[str]) -> dict[str, torch.Tensor]:
        return dict(self.tokenizer(captions, padding=True, truncation=True, return_tensors="pt"))

    def _scores(self, told: dict[str, torch.Tensor]) -> torch.Tensor:
        """Scaled cosines of texts (rows) and pictures (columns), (B, B)."""
        answer = self.model(told["input_ids"], told["pixels"], told["attention_mask"])
        scale = self.model.logit_scale.exp().clamp(max=100)  # as the paper has it, section 2.5
        scores: torch.Tensor = scale * answer.text_embeds @ answer.image_embeds.T
        return scores

    def save(self, weights: dict[str, torch.Tensor], about: dict[str, Any], out: Path) -> None:
        """Write the base with this tokenizer and text tower in place of its own, and both towers beside them."""
        shutil.copytree(self.base, out, dirs_exist_ok=True)
        for part in ("tokenizer", "text_encoder"):
            shutil.rmtree(out / part)
        model = self.model
        model.load_state_dict(weights)  # all of them learn
        model.to(next(iter(weights.values())).dtype)
        model.text_model.save_pretrained(out / "text_encoder")
        model.save_pretrained(out / "clip")
        side = model.config.vision_config.image_size
        half = [0.5, 0.5, 0.5]
        CLIPImageProcessorPil(
            size={"shortest_edge": side}, crop_size={"height": side, "width": side}, image_mean=half, image_std=half
        ).save_pretrained(out / "clip")
        for part in ("tokenizer", "clip"):
            self.tokenizer.save_pretrained(out / part)
        write_json(out / "clip" / "training.json", about)


def augmented(pixels_B3HW: torch.Tensor, draws_BA: torch.Tensor) -> torch.Tensor:
    """The pictures as other hands might have drawn them; draws from 0 to 1, a column for each of AUGMENTATIONS.

    Moved by up to an eighth of the side and scaled by 0.8 to 1.2 (edges go on beyond the picture), contrast 0.6
    to 1.4, saturation 0.2 to 1.4, edges darkened in half of the pictures, as with a pen.
    """
    down, right, size, contrast, saturation, ink = draws_BA.unbind(dim=1)
    theta = torch.zeros(len(pixels_B3HW), 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = 1.25 - 0.42 * size
    theta[:, 0, 2], theta[:, 1, 2] = (right - 0.5) / 2, (down - 0.5) / 2
    grid = torch.nn.functional.affine_grid(theta, list(pixels_B3HW.shape), align_corners=False)
    moved = torch.nn.functional.grid_sample(pixels_B3HW, grid, padding_mode="border", align_corners=False)
    contrast, saturation, ink = (draw[:, None, None, None] for draw in (contrast, saturation, ink))
    grey = moved.mean(dim=1, keepdim=True)
    across = torch.nn.functional.pad(grey.diff(dim=3).abs(), (0, 1))
    downwards = torch.nn.functional.pad(grey.diff(dim=2).abs(), (0, 0, 0, 1))
    coloured = (grey + (moved - grey) * (0.2 + 1.2 * saturation)) * (0.6 + 0.8 * contrast)
    pen = (2 * ink - 1).clamp(min=0) * 3 * (across + downwards)
    return (coloured - pen).clamp(-1, 1)


def numbered(captions: Sequence[str]) -> torch.Tensor:
    """A number for each caption, the same for the same, (B,)."""
    numbers = {caption: number for number, caption in enumerate(captions)}
    return torch.tensor([numbers[caption] for caption in captions])


def contrastive_losses(scores_BB: torch.Tensor, distinct_B: torch.Tensor) -> torch.Tensor:
    """Cross entropy of each row and each column against the pairs of the same number, halved, (B,)."""
    right_BB = (distinct_B[:, None] == distinct_B[None, :]).float()
    right_BB /= right_BB.sum(dim=1, keepdim=True)
    texts = -(right_BB * scores_BB.log_softmax(dim=1)).sum(dim=1)
    pictures = -(right_BB * scores_BB.log_softmax(dim=0)).sum(dim=0)
    return (texts + pictures) / 2


def train_tokenizer(captions: Iterable[str], tokens: int, length: int) -> CLIPTokenizer:
    """CLIP's byte-level pair encoding with a vocabulary of its own: `tokens` at most, `length` a text.

    Every byte is a token of its own too, alone and as the last of a word, so that any text can be read.
    """
    letters = sorted(ByteLevel.alphabet())
    known = letters + [f"{letter}</w>" for letter in letters]
    plain = CLIPTokenizer(vocab=_numbered([*known, BEGIN, END]), merges=[]).backend_tokenizer
    learner = Tokenizer(BPE(end_of_word_suffix="</w>"))
    learner.normalizer, learner.pre_tokenizer = plain.normalizer, plain.pre_tokenizer
    learner.train_from_iterator(
        sorted(captions),
        trainers.BpeTrainer(
            vocab_size=tokens,
            min_frequency=2,
            initial_alphabet=letters,
            end_of_word_suffix="</w>",
            show_progress=False,
        ),
    )
    merges = [tuple(pair) for pair in json.loads(learner.to_str())["model"]["merges"]]
    room = max(0, tokens - len(known) - 2)
    words = [*known, *("".join(pair) for pair in merges[:room]), BEGIN, END]
    return CLIPTokenizer(vocab=_numbered(words), merges=merges[:room], model_max_length=length)


def _numbered(words: list[str]) -> dict[str, int]:
    return {word: number for number, word in enumerate(dict.fromkeys(words))}


def open_clip(params: TrainParams, processed: Path, base: Path) -> Clip:
    """A tokenizer of the training captions and random towers; the text tower has the shape of the base's.

    Raises StageError if there are no pictures, or of several sizes.
    """
    train = Pixels(processed, "train")
    if not len(train):
        raise StageError("train", "there are no training pictures", "lower clean.validation_share")
    validation = Pixels(processed, "validation")
    sizes = {*train.sizes, *validation.sizes}
    if len(sizes) > 1 or any(width != height for width, height in sizes):
        raise StageError("train", "method clip reads square pictures of one size", "preprocess them to one")
    counts = Counter(caption for listed in train.captions for caption in listed)
    shape = load_encoder(StableDiffusion(), base, "text_encoder").config
    length = min(load_tokenizer(base, "text_encoder").model_max_length, shape.max_position_embeddings)
    tokenizer = train_tokenizer(counts.elements(), params.vocabulary, length)
    shared = {
        "hidden_size": shape.hidden_size,
        "intermediate_size": shape.intermediate_size,
        "num_attention_heads": shape.num_attention_heads,
        "projection_dim": shape.hidden_size,
    }
    text = {
        **shared,
        "vocab_size": len(tokenizer),
        "num_hidden_layers": shape.num_hidden_layers,
        "max_position_embeddings": shape.max_position_embeddings,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    side = train.read([0]).shape[-1]
    vision = {
        **shared,
        "image_size": side,
        "patch_size": side // PATCHES,
        "num_hidden_layers": shape.num_hidden_layers + 1,
    }
    torch.manual_seed(seed_of(params.seed, "clip weights"))
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=shape.hidden_size))
    return Clip(params, model, tokenizer, train, validation, folder_digest(processed, "*.parquet"), base)
