"""Captions for pictures without: counted, written by a model on request, and told apart from a source's own."""

from pathlib import Path

import pandas as pd
import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import (
    BlipConfig,
    BlipForConditionalGeneration,
    BlipImageProcessorPil,
    BlipProcessor,
    PreTrainedTokenizerFast,
)

from stages.caption.params import CaptionParams
from stages.caption.run import main
from stages.core.errors import StageError
from stages.core.pairs import RAW, Pair, ShardWriter, shards_below
from stages.inspect.params import InspectParams
from stages.inspect.run import main as inspect
from tests.pictures import bomb, drawing, encoded

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[DEC]", "red", "blue", "cat", "dog", "house", "a", "of"]


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BLIP with random weights that knows a dozen words."""
    folder = tmp_path_factory.mktemp("imported")
    plain = Tokenizer(WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="[UNK]"))
    plain.pre_tokenizer = Whitespace()
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "bos_token": "[DEC]", "cls_token": "[CLS]"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=plain, sep_token="[SEP]", eos_token="[SEP]", **special)
    size = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = {**size, "vocab_size": len(WORDS), "encoder_hidden_size": 16, "bos_token_id": 4, "pad_token_id": 0}
    torch.manual_seed(0)
    model = BlipForConditionalGeneration(
        BlipConfig(
            text_config={**text, "eos_token_id": 3, "sep_token_id": 3, "max_position_embeddings": 64},
            vision_config={**size, "image_size": 32, "patch_size": 8},
            projection_dim=8,
        )
    )
    model.save_pretrained(folder / "blip")
    BlipProcessor(BlipImageProcessorPil(size={"height": 32, "width": 32}), tokenizer).save_pretrained(folder / "blip")
    return folder


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    writer = ShardWriter(tmp_path / "raw" / "mine", RAW)
    for number, captions in enumerate([["a cat"], [], [], []]):
        data = bomb() if number == 3 else encoded(drawing(number))
        writer.add(Pair(f"{number:064x}", data, f"{number}.png", captions, "mine").row(), len(data))
    writer.close()
    (tmp_path / "raw" / "sources.json").write_text('["mine"]')
    return tmp_path


def run(folder: Path, imported: Path, name: str = "captions", **knobs: object) -> pd.DataFrame:
    params = CaptionParams.model_validate(knobs)
    main(params, folder / "raw", imported, folder / f"{name}.parquet", folder / f"{name}.json")
    return pd.read_parquet(folder / f"{name}.parquet")


def test_without_a_model_missing_captions_are_counted(raw: Path, imported: Path) -> None:
    assert run(raw, imported).empty
    assert (raw / "captions.json").read_text() == '{\n  "captioned": 0,\n  "without_caption": 3\n}\n'


def test_a_model_describes_what_has_no_caption(raw: Path, imported: Path) -> None:
    table = run(raw, imported, model="folder:blip", prompt="a cat", max_tokens=6, batch_size=2)
    assert table["key"].tolist() == [f"{number:064x}" for number in (1, 2)]  # the bomb can't be looked at
    assert all(set(caption.split()) <= set(WORDS) for caption in table["caption"])
    again = run(raw, imported, "again", model="folder:blip", prompt="a cat", max_tokens=6, batch_size=2)
    assert (raw / "captions.parquet").read_bytes() == (raw / "again.parquet").read_bytes()
    assert again.equals(table)


def test_written_captions_are_told_apart(raw: Path, imported: Path) -> None:
    written = run(raw, imported, model="folder:blip", prompt="a cat", max_tokens=6)
    inspect(InspectParams(), raw / "raw", raw / "captions.parquet", raw / "inspected")
    measured = pd.concat(pd.read_parquet(path) for path in shards_below(raw / "inspected"))
    assert measured["captions_by"].fillna("").tolist() == ["source", "model", "model", ""]
    assert [list(listed) for listed in measured["captions"]] == [["a cat"], *([c] for c in written["caption"]), []]


def test_models_that_are_not_there(raw: Path, imported: Path) -> None:
    with pytest.raises(StageError, match=r"the folder .* is missing; put the model there"):
        run(raw, imported, model="folder:nothing")
    (imported / "empty").mkdir(exist_ok=True)
    with pytest.raises(StageError, match=r"caption\.model: folder:empty can't be opened"):
        run(raw, imported, model="folder:empty")
    for wrong in ("blip", "hub:owner/name", "hub:owner/name@main", "folder:../x"):
        with pytest.raises(ValueError, match="pattern"):
            CaptionParams(model=wrong)
