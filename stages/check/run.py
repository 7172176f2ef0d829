"""check: refuse bad params before any work.

in    params.yaml, whole; the folders it names
out   data/checked.json  always the same bytes, so nothing after it runs again for its sake

DVC removes a stage's outputs before it runs the stage. A typo found by the
stage itself would come too late: its old outputs are gone, and in a section
late in the pipeline it would cost a whole training. So this runs first.
"""

from pathlib import Path

from stages.check.sections import SECTION_TYPES
from stages.core.files import write_json
from stages.core.params import parse_section, read_params
from stages.core.stage import run_stage
from stages.sample.listed import pictures_of


def main(sources: Path, imported: Path, conditions: Path, prompts: Path, out: Path) -> None:
    """Every section against its type, then the folders that they name."""
    tree = read_params(Path("params.yaml"))
    sections = {name: parse_section(kind, name, tree.get(name)) for name, kind in SECTION_TYPES.items()}
    sections["base"].place(imported)
    sections["train"].verify()
    sections["caption"].place(imported)
    sections["score"].classifier_places(imported)
    if sections["score"].clip:
        sections["score"].clip_place(imported, imported)
    sections["merge"].verify(imported, sections["train"].method == "textual_inversion")
    for source in sections["collect"].sources:
        source.verify(sources)
    sections["preprocess"].verify(conditions, [source.name for source in sections["collect"].sources])
    pictures_of(sections["sample"], prompts)
    sections["sample"].safety_place(imported)
    trains_lora = sections["train"].method == "lora" and not sections["train"].lora.dora
    sections["grid"].verify(["base", "trained", *sections["merge"].root], ["trained"] if trains_lora else [])
    write_json(out, {"params": "valid"})


if __name__ == "__main__":
    run_stage(main)
