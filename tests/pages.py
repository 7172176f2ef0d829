"""README and guide as the tests read them: what stands between blank lines, and the commands in it."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from stages.core.params import SECTIONS
from tests.conftest import ROOT

PROGRAMS = r"(?:\w+=\S+ )*(?:\.|cp|dvc|export|for|git|gto|make|pip|pytest|python|ray) "
# What a block of code is, by how it begins; "other" is what a program says or a table holds.
KINDS = {
    "params": rf"(?:{'|'.join(SECTIONS)}):\n",
    "prompts": r"- \{",
    "session": r"\$ ",
    "shell": rf"(?:# .*\n)?[!%]?{PROGRAMS}",
}


@dataclass(frozen=True)
class Paragraph:
    """Text, or a block of code without its margin; a block may have blank lines."""

    section: str  # "README.md: Share"
    kind: str  # of KINDS, "other" or "text"
    text: str


def paragraphs(page: str) -> Iterator[Paragraph]:
    """In the order of the page."""
    section = page
    for code, text in parts((ROOT / page).read_text()):
        if text.startswith("#"):
            section = f"{page}: {text.lstrip('# ')}"
        elif code:
            block = re.sub(r"^ {4}", "", text, flags=re.M)
            yield Paragraph(
                section, next((kind for kind, first in KINDS.items() if re.match(first, block)), "other"), block
            )
        else:
            yield Paragraph(section, "text", text)


def parts(text: str) -> Iterator[tuple[bool, str]]:
    """(is code, text) of each paragraph, blocks joined over the blank lines in them."""
    block: list[str] = []
    for part in re.split(r"\n\n+", text.strip("\n")):
        if part.startswith("    "):
            block.append(part)
            continue
        if block:
            yield True, "\n\n".join(block)
        block = []
        yield False, part
    if block:
        yield True, "\n\n".join(block)


PARAGRAPHS = [paragraph for page in ("README.md", "docs/guide.md") for paragraph in paragraphs(page)]


def inline(paragraph: Paragraph) -> list[str]:
    """Commands in backticks; `dvc add` and the like, without what to do it to, are names."""
    found = (" ".join(each.split()) for each in re.findall(rf"`({PROGRAMS}[^`]*)`", paragraph.text))
    return [each for each in found if re.match(r"\. .*activate$|[^.]", each) and each not in NAMES]


NAMES = ("dvc add", "dvc checkout", "dvc exp run", "dvc exp run --temp")
