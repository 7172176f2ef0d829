"""Prompts with weights and prompts that are too long: plain ones stay as they were."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stages.base.random_families import build
from stages.core.errors import StageError
from stages.core.prompts import compel_syntax, read_prompt
from stages.core.sampling import Drawing, draw
from stages.core.texts import Texts, plain_text

READ = ("tiny", "tiny-sdxl")
LONG = "a fox in the snow, a cat on a mat, " * 4


@pytest.fixture(scope="module")
def pipelines() -> dict[str, Any]:
    built: dict[str, Any] = {name: build(name, 0) for name in (*READ, "tiny-sd3")}
    built["tiny-sd3"].text_encoder_3.eval()
    return built


@pytest.mark.parametrize("family", [*READ, "tiny-sd3"])
@pytest.mark.parametrize(
    "text", ["a fox", "", "keycap: 10", "flag: Myanmar (Burma)", "wind-blown (face), x - y", 'a "quoted" word :)']
)
def test_plain_ones_are_read_as_diffusers_reads_them(pipelines: dict[str, Any], family: str, text: str) -> None:
    read, plain = read_prompt(pipelines[family], text), plain_text(pipelines[family], text)
    assert torch.equal(read.embeddings, plain.embeddings)
    assert (read.pooled is None) == (plain.pooled is None) == (family == "tiny")


@pytest.mark.parametrize("family", READ)
def test_a_weight_of_one_changes_nothing(pipelines: dict[str, Any], family: str) -> None:
    pipeline = pipelines[family]
    for text, plain in (("(a fox)1.0 runs", "(a fox)1.0 runs"), ("(a fox)1.000001 runs", "a fox runs")):
        read, wanted = read_prompt(pipeline, text), plain_text(pipeline, plain)
        torch.testing.assert_close(read.embeddings, wanted.embeddings, atol=1e-4, rtol=1e-4)
        if wanted.pooled is not None and read.pooled is not None:
            assert torch.equal(read.pooled, wanted.pooled)


@pytest.mark.parametrize("family", READ)
def test_weights_lead_from_the_empty_text_through_the_plain_one(pipelines: dict[str, Any], family: str) -> None:
    """A weight w of everything is empty + w (plain - empty): compel's reading of weights above 1."""
    pipeline = pipelines[family]
    empty, plain = (plain_text(pipeline, text).embeddings for text in ("", "a fox"))
    heavy = read_prompt(pipeline, "(a fox)1.5").embeddings
    inside = slice(1, 4)
    torch.testing.assert_close(heavy[:, inside], (empty + 1.5 * (plain - empty))[:, inside], atol=1e-4, rtol=1e-4)
    assert not torch.allclose(read_prompt(pipeline, "(a fox)0.3 runs").embeddings, plain)


@pytest.mark.parametrize("family", READ)
def test_both_programs_words_for_a_weight_mean_the_same(pipelines: dict[str, Any], family: str) -> None:
    pairs = {"a (red:1.3) fox": "a (red)1.3 fox", "((red:1.2) fox: .5) at 7:30": "((red)1.2 fox).5 at 7:30"}
    for webui, compel in pairs.items():
        assert compel_syntax(webui) == compel
        read = [read_prompt(pipelines[family], text).embeddings for text in (webui, compel)]
        assert torch.equal(*read)


@pytest.mark.parametrize("family", READ)
def test_a_long_prompt_is_read_to_its_end(pipelines: dict[str, Any], family: str) -> None:
    pipeline = pipelines[family]
    one, other = (read_prompt(pipeline, LONG + ending).embeddings for ending in ("by day", "by night"))
    most = pipeline.tokenizer.model_max_length
    assert one.shape == other.shape
    assert one.shape[1] % most == 0
    assert one.shape[1] > most
    assert torch.equal(one[:, :most], other[:, :most])
    assert not torch.equal(one, other)
    cut = [plain_text(pipeline, LONG + ending).embeddings for ending in ("by day", "by night")]
    assert torch.equal(*cut)


@pytest.mark.parametrize("family", [*READ, "tiny-sd3"])
def test_a_backslash_makes_a_mark_plain(pipelines: dict[str, Any], family: str) -> None:
    escaped, plain = (
        read_prompt(pipelines[family], r"C\+\+ \(the language\)"),
        plain_text(pipelines[family], "C++ (the language)"),
    )
    assert torch.equal(escaped.embeddings, plain.embeddings)


@given(st.text("ab (:.3\\", max_size=12))
def test_only_brackets_that_end_in_a_number_are_rewritten(text: str) -> None:
    """No closing bracket, no change; what is rewritten stays so."""
    assert compel_syntax(text) == text
    once = compel_syntax(text + ")")
    assert compel_syntax(once) == once
    assert once.count("(") == text.count("(")


def test_marks_in_a_long_plain_prompt_are_no_syntax(pipelines: dict[str, Any]) -> None:
    """Brackets that weigh nothing are read as they stand, as in a short prompt."""
    with_marks, without = (read_prompt(pipelines["tiny"], f"a {mark} " + LONG) for mark in ("(x)", "x"))
    assert not torch.equal(with_marks.embeddings, without.embeddings)


@pytest.mark.parametrize("family", READ)
def test_a_short_negative_beside_a_long_prompt_is_filled_with_the_empty_text(
    pipelines: dict[str, Any], family: str
) -> None:
    pipeline = pipelines[family]
    texts = Texts(pipeline, read_prompt)
    length = texts.length(LONG, "a cat")
    batch = texts.batch([LONG], ["a cat"], length)
    most = pipeline.tokenizer.model_max_length
    assert batch.embeddings.shape[:2] == (2, length)
    assert torch.equal(batch.embeddings[:1, most : 2 * most], texts[""].embeddings)
    pipeline.set_progress_bar_config(disable=True)
    long, short = Drawing(LONG, 0, (32, 32), 2, negative="a cat"), Drawing("a fox", 0, (32, 32), 2)
    together = draw(pipeline, [long, short], 2, read_prompt)
    apart = [draw(pipeline, [one], 1, read_prompt)[0] for one in (long, short)]
    assert [picture.tobytes() for picture in together] == [picture.tobytes() for picture in apart]


def test_what_cant_be_read_is_refused(pipelines: dict[str, Any]) -> None:
    with pytest.raises(StageError, match=r"\.swap\(\) can't be read"):
        read_prompt(pipelines["tiny"], "a cat.swap(dog)")
    with pytest.raises(StageError, match="has weights, and Stable Diffusion 3 doesn't know that"):
        read_prompt(pipelines["tiny-sd3"], "a (fox)1.5")
    with pytest.raises(StageError, match="is longer than 256 tokens"):
        read_prompt(pipelines["tiny-sd3"], LONG * 12)
