"""CelebA in its three layouts; attributes become sentences, people stay together."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.collect.face_sentences import listed, sentence
from stages.collect.params import CelebA
from stages.core.errors import StageError
from tests.collect.reading import plant, read
from tests.pictures import drawing, encoded

HEADER = (
    "5_o_Clock_Shadow Arched_Eyebrows Attractive Bags_Under_Eyes Bald Bangs Big_Lips Big_Nose Black_Hair Blond_Hair "
    "Blurry Brown_Hair Bushy_Eyebrows Chubby Double_Chin Eyeglasses Goatee Gray_Hair Heavy_Makeup High_Cheekbones "
    "Male Mouth_Slightly_Open Mustache Narrow_Eyes No_Beard Oval_Face Pale_Skin Pointy_Nose Receding_Hairline "
    "Rosy_Cheeks Sideburns Smiling Straight_Hair Wavy_Hair Wearing_Earrings Wearing_Hat Wearing_Lipstick "
    "Wearing_Necklace Wearing_Necktie Young"
)
NAMES = HEADER.split()
FACES = {
    "000001.jpg": {"Young", "Smiling", "Wavy_Hair", "Brown_Hair", "Heavy_Makeup", "Wearing_Earrings", "No_Beard"},
    "000002.jpg": {"Male", "No_Beard", "Bald", "Eyeglasses"},
    "000003.jpg": {"Male", "Goatee", "Mustache", "Black_Hair"},
}
SENTENCES = [
    "a photo of a smiling young woman with wavy brown hair and heavy makeup, wearing earrings",
    "a photo of a bald man wearing eyeglasses",
    "a photo of a man with black hair, a goatee and a mustache",
]
PEOPLE, PARTS = dict(zip(FACES, (7, 8, 7), strict=True)), dict(zip(FACES, (0, 1, 2), strict=True))


def table(gap: str) -> Iterator[str]:
    for name, has in FACES.items():
        yield gap.join([name, *("1" if each in has else "-1" for each in NAMES)])


def lists(kind: str) -> dict[str, str]:
    """The lists in one of the layouts that people have."""
    end = "\r\n" if kind == "official" else "\n"
    parts = {"identity_CelebA": PEOPLE, "list_eval_partition": PARTS}
    if kind == "kaggle":
        rows = [",".join(["image_id", *NAMES]), *table(",")]
        told = {name: ["image_id,x", *(f"{a},{b}" for a, b in rows.items())] for name, rows in parts.items()}
        return {f"{name}.csv": "\n".join(lines) for name, lines in {"list_attr_celeba": rows, **told}.items()}
    rows = ["3", HEADER + " ", *(line.replace(" 1", "  1") for line in table(" "))]
    told = {name: [f"{a} {b}" for a, b in rows.items()] for name, rows in parts.items()}
    folders = {"list_eval_partition": "Eval/"}
    return {
        f"{folders.get(name, 'Anno/') if kind == 'official' else ''}{name}.txt": end.join(lines) + end
        for name, lines in {"list_attr_celeba": rows, **told}.items()
    }


IMAGES = {
    "official": "Img/img_align_celeba",
    "flat": "img_align_celeba",
    "kaggle": "img_align_celeba/img_align_celeba",
}


def build(sources: Path, kind: str) -> Path:
    root = plant(sources / "celeba", dict(lists(kind)))
    pictures = {name: encoded(drawing(number, (18, 22)), "JPEG") for number, name in enumerate(FACES)}
    plant(root / IMAGES[kind], dict(pictures))
    return root


def celeba(**knobs: Any) -> CelebA:
    return CelebA.model_validate({"kind": "celeba", **knobs})


@pytest.mark.parametrize("kind", IMAGES)
def test_the_same_pairs_from_every_layout(tmp_path: Path, kind: str) -> None:
    build(tmp_path, kind)
    pairs, failures = read(celeba(), tmp_path)
    assert not failures
    assert list(pairs) == [f"{IMAGES[kind]}/{name}" for name in FACES]
    assert [pair.captions for pair in pairs.values()] == [[each] for each in SENTENCES]
    assert [pair.split for pair in pairs.values()] == ["train", "validation", "validation"]
    assert [pair.group for pair in pairs.values()] == ["celeba:7", "celeba:8", "celeba:7"]
    assert {(pair.license, pair.attribution) for pair in pairs.values()} == {
        ("non-commercial research", "CelebA (Liu et al. 2015)")
    }
    assert [set(json.loads(pair.extra)["attributes"].split()) for pair in pairs.values()] == list(FACES.values())
    assert {pair.split for pair in read(celeba(official_split=False), tmp_path)[0].values()} == {None}


def test_what_is_missing_broken_or_too_much(tmp_path: Path) -> None:
    root = build(tmp_path, "flat")
    plant(root / "img_align_celeba", {"000009.jpg": b"x"})
    (root / "img_align_celeba" / "000003.jpg").unlink()
    broken = ["000004.jpg 1 -1\n", "../000005.jpg" + " -1" * 40 + "\n", "000001.jpg" + " -1" * 40 + "\n"]
    plant(root, {"list_attr_celeba.txt": lists("flat")["list_attr_celeba.txt"] + "".join(broken)})
    plant(root, {"identity_CelebA.txt": "000001.jpg 7\n000002.jpg\n", "000005.jpg": b"x"})
    (root / "list_eval_partition.txt").unlink()
    pairs, failures = read(celeba(), tmp_path)
    assert [(pair.group, pair.split) for pair in pairs.values()] == [("celeba:7", None), (None, None)]
    assert failures == {
        "img_align_celeba/000003.jpg": "missing_file",
        "img_align_celeba/../000005.jpg": "outside_folder",
        "list_attr_celeba.txt:6": "malformed_line",
        "list_attr_celeba.txt:8": "listed_twice",
        "identity_CelebA.txt:2": "malformed_line",
        "img_align_celeba/000009.jpg": "not_listed",
    }


def with_captions(root: Path) -> None:
    plant(
        root,
        {
            "CelebA-HQ-to-CelebA-mapping.txt": "idx   orig_idx   orig_file\n0       1   000002.jpg\n5 2 000003.jpg\n",
            "text/celeba-caption/0.txt": "He is bald.\r\n\r\nHe wears eyeglasses.\n",
            "filenames.pickle": b"\x80\x04never opened",
        },
    )


def test_captions_of_multi_modal_celeba_hq(tmp_path: Path) -> None:
    with_captions(build(tmp_path, "official"))
    told = ["He is bald.", "He wears eyeglasses."]
    for choice, captions in {
        "auto": [[SENTENCES[0]], told, [SENTENCES[2]]],
        "attributes": [[each] for each in SENTENCES],
        "multimodal": [[], told, []],
    }.items():
        pairs, failures = read(celeba(captions_from=choice), tmp_path)
        assert [pair.captions for pair in pairs.values()] == captions
        assert not failures


def test_captions_without_their_mapping_are_said(tmp_path: Path) -> None:
    root = build(tmp_path, "flat")
    with pytest.raises(StageError, match=r"celeba-caption: is missing; see docs/guide\.md"):
        read(celeba(captions_from="multimodal"), tmp_path)
    with_captions(root)
    (root / "CelebA-HQ-to-CelebA-mapping.txt").unlink()
    with pytest.raises(StageError, match=r"mapping\.txt: is missing"):
        read(celeba(), tmp_path)


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({}, "img_align_celeba: is missing"),
        ({"img_align_celeba/1.jpg": b""}, r"list_attr_celeba\.txt: is missing"),
        ({"img_align_celeba/1.jpg": b"", "list_attr_celeba.txt": "3\na b c\n"}, "line 2 has no names of attributes"),
        ({"img_align_celeba/1.jpg": b"", "list_attr_celeba.csv": "image_id,Male\nx\n"}, "has no line as"),
    ],
)
def test_what_is_no_celeba_is_said(tmp_path: Path, files: dict[str, bytes | str], said: str) -> None:
    plant(tmp_path / "celeba", {"readme.txt": "x", **files})
    with pytest.raises(StageError, match=said):
        read(celeba(), tmp_path)


@pytest.mark.parametrize(
    ("attributes", "said"),
    [
        ("", "a photo of a woman"),
        ("No_Beard Attractive", "a photo of a woman"),
        ("Male", "a photo of a man with a beard"),
        ("Male Mustache", "a photo of a man with a mustache"),
        ("Male No_Beard Goatee Sideburns", "a photo of a man with sideburns"),
        ("Goatee Mustache", "a photo of a woman"),
        ("Blurry Smiling Chubby Wearing_Hat", "a blurry photo of a smiling chubby woman wearing a hat"),
        ("Male No_Beard Bald Wavy_Hair Black_Hair Bangs", "a photo of a bald man"),
        ("Straight_Hair Wavy_Hair Blond_Hair Brown_Hair", "a photo of a woman with blond and brown hair"),
        ("Straight_Hair Bangs", "a photo of a woman with straight hair and bangs"),
        ("Big_Nose Pointy_Nose Arched_Eyebrows", "a photo of a woman with arched eyebrows and a big, pointy nose"),
        ("Mouth_Slightly_Open Heavy_Makeup", "a photo of a woman with a slightly open mouth and heavy makeup"),
        (
            "Male 5_o_Clock_Shadow Receding_Hairline Gray_Hair Wearing_Necktie Eyeglasses",
            "a photo of a man with gray hair, a receding hairline and a five o'clock shadow, "
            "wearing eyeglasses and a necktie",
        ),
    ],
)
def test_sentences(attributes: str, said: str) -> None:
    assert sentence(set(attributes.split())) == said


@given(has=st.sets(st.sampled_from(NAMES)))
@settings(deadline=None, max_examples=300)
def test_every_combination_is_a_sentence_that_clip_can_read(has: set[str]) -> None:
    said = sentence(has)
    assert re.fullmatch(r"[a-z0-9', ]+[a-z]", said)
    assert not re.search(r"  | ,|,,|\band and\b|\bwith wearing\b|\ba a\b", said)
    assert len(said.split()) <= 60
    assert ("woman" in said) != ("Male" in has)
    assert "attractive" not in said
    assert said == sentence(has | {"Attractive"})


def test_lists_of_words() -> None:
    assert [listed(["a", "b", "c"][:count]) for count in (1, 2, 3)] == ["a", "a and b", "a, b and c"]
