"""Pictures asked for = rows + failures, whatever lies in the folder."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.collect.folder import read_folder
from stages.collect.found import Finisher, Found
from stages.collect.openmoji import motif_of, name_of, read_openmoji
from stages.collect.params import CollectParams, Folder, OpenMoji
from stages.collect.run import main
from stages.collect.spool import FailureWriter, write_source
from stages.core.errors import StageError
from stages.core.pairs import FAILURES, Failure, Pair, shards_below
from tests.collect.reading import read
from tests.pictures import drawing, encoded


def folder(*, name: str = "mine", **options: Any) -> Folder:
    return Folder.model_validate({"kind": "folder", "name": name, **options})


def items(source: Folder, sources: Path) -> dict[str, Pair | Failure]:
    finisher = Finisher(source)
    found = read_folder(source, sources)
    return {item.path: item if isinstance(item, Failure) else finisher.finish(item) for item in found}


def written(found: Iterator[Pair | Failure], limit: int | None, out: Path) -> tuple[int, list[Failure]]:
    """Rows written to `out`, and the failures."""
    out.mkdir(exist_ok=True)
    with FailureWriter(out / FAILURES) as failures:
        rows, _ = write_source(found, limit, out / "mine", failures)
    return rows, [Failure(**row) for row in pd.read_parquet(out / FAILURES).to_dict("records")]


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    root = tmp_path / "mine"
    (root / "sub").mkdir(parents=True)
    for number, name in enumerate(["a.png", "b.PNG", "sub/c.png"]):
        (root / name).write_bytes(encoded(drawing(number)))
    return root


def captions(item: Pair | Failure) -> list[str]:
    assert isinstance(item, Pair)
    return item.captions


def test_sidecars(mine: Path) -> None:
    (mine / "a.txt").write_bytes("\ufefffirst\r\n\r\nsecond\n".encode())
    (mine / "b.caption").write_bytes(b"caf\xe9")
    found = items(folder(license="CC0"), mine.parent)
    assert list(found) == ["a.png", "b.PNG", "sub/c.png"]
    assert captions(found["a.png"]) == ["first", "second"]
    assert captions(found["b.PNG"]) == ["caf\ufffd"]
    assert captions(found["sub/c.png"]) == []
    assert all(isinstance(item, Pair) and item.license == "CC0" for item in found.values())


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_metadata(mine: Path, kind: str) -> None:
    rows = [
        {"file_name": "a.png", "text": "an A", "artist": "Ada"},
        {"file_name": "a.png", "text": "again", "artist": "Ada"},
        {"file_name": "gone.png", "text": "nothing", "artist": ""},
        {"file_name": "../../etc/passwd", "text": "no", "artist": ""},
        {"file_name": "sub/c.png", "text": "NA", "artist": "001"},
    ]
    table = pd.DataFrame(rows)
    path = mine / f"metadata.{kind}"
    match kind:
        case "csv":
            table.to_csv(path, index=False)
        case "jsonl":
            table.to_json(path, orient="records", lines=True)
        case "parquet":
            table.to_parquet(path)
    found = items(folder(), mine.parent)
    assert captions(found["a.png"]) == ["an A", "again"]
    assert captions(found["sub/c.png"]) == ["NA"]
    third = found["sub/c.png"]
    assert isinstance(third, Pair)
    assert json.loads(third.extra) == {"artist": "001"}
    codes = {path: item.code for path, item in found.items() if isinstance(item, Failure)}
    assert {code: Path(path).name for path, code in codes.items()} == {
        "no_caption_row": "b.PNG",
        "missing_file": "gone.png",
        "outside_folder": "passwd",
    }


def test_metadata_faults_say_what_to_do(mine: Path) -> None:
    (mine / "metadata.csv").write_text("file_name,words\na.png,x\n")
    with pytest.raises(
        StageError, match=r"has no caption column \(text or caption or prompt or txt\).*it has file_name, words"
    ):
        items(folder(), mine.parent)
    assert captions(items(folder(caption_column="words"), mine.parent)["a.png"]) == ["x"]
    (mine / "metadata.csv").write_text("name,text\n")
    with pytest.raises(StageError, match="has no column file_name"):
        items(folder(), mine.parent)


def test_however_a_row_writes_the_name(mine: Path) -> None:
    names = ["./a.png", "sub/../b.PNG", str(mine / "sub" / "c.png")]
    pd.DataFrame({"file_name": names, "text": ["A", "B", "C"]}).to_csv(mine / "metadata.csv", index=False)
    found = items(folder(), mine.parent)
    assert [captions(found[name]) for name in ("a.png", "b.PNG", "sub/c.png")] == [["A"], ["B"], ["C"]]


def test_jsonl_lines_may_hold_unicode_line_separators(mine: Path) -> None:
    (mine / "metadata.jsonl").write_text('{"file_name": "a.png", "text": "one\u2028line"}\n', encoding="utf-8")
    assert captions(items(folder(), mine.parent)["a.png"]) == ["one\u2028line"]


def test_files_of_unknown_kind_do_not_vanish(mine: Path) -> None:
    for name in ("b.heic", "sub/clip.mp4", ".DS_Store", "a.txt"):
        (mine / name).write_bytes(b"x")
    failed = {path: item.code for path, item in items(folder(), mine.parent).items() if isinstance(item, Failure)}
    assert failed == {"b.heic": "unknown_kind", "sub/clip.mp4": "unknown_kind"}


def test_orphans_links_and_odd_rows_do_not_vanish(mine: Path) -> None:
    (mine / "lonely.txt").write_text("a caption")
    (mine.parent / "elsewhere").mkdir()
    (mine / "linked").symlink_to(mine.parent / "elsewhere")
    failed = {path: item.code for path, item in items(folder(), mine.parent).items() if isinstance(item, Failure)}
    assert failed == {"linked": "linked_folder", "lonely.txt": "no_picture"}
    (mine / ".hidden.png").write_bytes(encoded(drawing(9)))
    (mine / "metadata.csv").write_text("file_name,text\n.hidden.png,x\nlonely.txt,y\na.png,z\n")
    failed = {path: item.code for path, item in items(folder(), mine.parent).items() if isinstance(item, Failure)}
    assert failed == {
        "b.PNG": "no_caption_row",
        "linked": "linked_folder",
        "lonely.txt": "no_picture",
        "sub/c.png": "no_caption_row",
        ".hidden.png": "hidden_file",
    }


def tree(root: Path, *names: str) -> Path:
    for number, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(encoded(drawing(number)))
    return root


def test_layouts_are_found_and_can_be_forced(tmp_path: Path) -> None:
    root = tree(tmp_path / "mine", "10_sks dog/a.png", "10_sks dog/b.png", "1_dog/c.png")
    (root / "1_dog" / "c.txt").write_text("a photo of a dog")
    pairs, _ = read(folder(fallback="a photo of {class}"), tmp_path)
    told = {path: (pair.captions, pair.repeats) for path, pair in pairs.items()}
    assert told == {
        "1_dog/c.png": (["a photo of a dog"], 1),
        "10_sks dog/a.png": (["a photo of sks dog"], 10),
        "10_sks dog/b.png": (["a photo of sks dog"], 10),
    }
    assert read(folder(repeats=3), tmp_path)[0]["10_sks dog/a.png"].repeats == 30
    assert read(folder(), tmp_path)[0]["10_sks dog/a.png"].captions == []  # never silently the class
    plain, _ = read(folder(layout="sidecar"), tmp_path)
    assert [(pair.captions, pair.repeats) for pair in plain.values()] == [([], 1), ([], 1), (["a photo of a dog"], 1)]
    classes, _ = read(folder(layout="classes", captions=["a {class}"]), tmp_path)
    assert classes["10_sks dog/a.png"].captions == ["a 10 sks dog"]


def test_class_folders(tmp_path: Path) -> None:
    tree(tmp_path / "mine", "black_cat/a.png", "dog/b.png", "dog/puppies/c.png")
    pairs, _ = read(folder(), tmp_path)
    assert [pair.captions for pair in pairs.values()] == [["black cat"], ["dog"], ["puppies"]]


def finished(found: Found, **options: Any) -> Pair | Failure:
    return Finisher(folder(**options)).finish(found)


def test_caption_options() -> None:
    found = Found(b"x", "a", ["the longest one", "two words", "  "], {"class": "wren", "wing": 3.5, "none": None})
    assert captions(finished(found)) == ["the longest one", "two words"]
    assert captions(finished(found, use="first")) == ["the longest one"]
    assert captions(finished(found, use="shortest", trigger="sks")) == ["sks, two words"]
    templates = ["{caption}, {class}", "a {class} with a wing of {wing} cm", "{none}", "{caption} {absent}"]
    assert captions(finished(found, use="longest", captions=templates)) == [
        "the longest one, wren",
        "a wren with a wing of 3.5 cm",
    ]
    bare = Found(b"x", "a", [], {"class": "{wing}"})
    assert captions(finished(bare)) == []
    assert captions(finished(bare, fallback="a {class}")) == ["a {wing}"]  # a field's text is never a template
    assert captions(finished(bare, fallback="a {wing}")) == []


def test_a_field_that_no_picture_has_is_a_slip_of_the_pen(mine: Path) -> None:
    with pytest.raises(StageError, match=r"no picture has the field clas of the caption 'a \{clas\}'; use caption"):
        read(folder(captions=["a {clas}"]), mine.parent)


@pytest.mark.parametrize(
    ("terms", "allowed", "passes"),
    [
        ("CC BY 4.0", ["cc by*"], True),
        ("CC0", ["CC BY*", "CC0"], True),
        ("all rights reserved", ["CC*"], False),
        (None, ["*"], False),
        (None, [], True),
    ],
)
def test_only_licences_that_are_allowed(terms: str | None, allowed: list[str], passes: bool) -> None:
    item = finished(Found(b"x", "a", [], license=terms), licenses=allowed)
    assert isinstance(item, Pair) == passes
    assert passes or (isinstance(item, Failure) and item.code == "license_not_allowed")


def test_columns_roles_and_what_the_source_leaves_open() -> None:
    found = Found(b"x", "a", [], {"punsafe": 0.1, "hash": 7}, license="CC0", repeats=2)
    item = finished(
        found, columns=["punsafe", "gone"], role="regularisation", license="MIT", attribution="me", repeats=3
    )
    assert isinstance(item, Pair)
    assert json.loads(item.extra) == {"gone": None, "punsafe": 0.1}
    assert (item.role, item.license, item.attribution, item.repeats) == ("regularisation", "CC0", "me", 6)


def test_two_metadata_files_side_by_side_are_refused(mine: Path) -> None:
    for name in ("metadata.csv", "metadata.jsonl"):
        (mine / name).write_text("")
    with pytest.raises(StageError, match="has two metadata files in one folder"):
        items(folder(), mine.parent)


def test_captions_behind_links_that_leave_are_not_read(mine: Path) -> None:
    (mine.parent / "secret.txt").write_text("secret")
    (mine / "a.txt").symlink_to(mine.parent / "secret.txt")
    assert captions(items(folder(), mine.parent)["a.png"]) == []
    (mine / "metadata.csv").symlink_to(mine.parent / "secret.txt")
    with pytest.raises(StageError, match="is a link that leaves the folder"):
        items(folder(), mine.parent)


def test_missing_and_escaping_folders(tmp_path: Path) -> None:
    (tmp_path / "sources").mkdir()
    with pytest.raises(StageError, match=r"collect\.sources, mine: the folder .* is missing; put your pictures there"):
        items(folder(), tmp_path / "sources")
    with pytest.raises(StageError, match="is not below"):
        items(folder(path=".."), tmp_path / "sources")


def test_links_that_leave_are_not_followed(mine: Path) -> None:
    (mine.parent / "secret.png").write_bytes(b"secret")
    (mine / "z.png").symlink_to(mine.parent / "secret.png")
    found = items(folder(), mine.parent)["z.png"]
    assert isinstance(found, Failure)
    assert found.code == "outside_folder"


NAMES = st.lists(st.sampled_from([f"{number}.png" for number in range(12)]), unique=True, min_size=1)


@settings(max_examples=40, deadline=None)
@given(
    names=NAMES,
    contents=st.lists(st.sampled_from([b"", b"one", b"two", b"three"]), min_size=12),
    limit=st.none() | st.integers(1, 5),
)
def test_asked_for_is_rows_plus_failures(
    tmp_path_factory: pytest.TempPathFactory, names: list[str], contents: list[bytes], limit: int | None
) -> None:
    base = tmp_path_factory.mktemp("broken")
    (base / "mine").mkdir()
    for number, name in enumerate(names):
        (base / "mine" / name).write_bytes(contents[number])
    finisher = Finisher(folder())
    found = (item if isinstance(item, Failure) else finisher.finish(item) for item in read_folder(folder(), base))
    rows, failures = written(found, limit, base / "out")
    keys = [key for shard in shards_below(base / "out") for key in pd.read_parquet(shard, columns=["key"])["key"]]
    assert rows + len(failures) == len(names)
    assert rows == len(keys) == len(set(keys)) <= (limit or 12)


def test_equal_bytes_are_one_row_with_all_captions(tmp_path: Path) -> None:
    def found() -> Iterator[Pair | Failure]:
        for name, caption in (("a", "red"), ("b", "crimson"), ("c", "red")):
            yield Pair("0" * 64, b"same", name, [caption], "mine")

    rows, failures = written(found(), None, tmp_path)
    assert rows == 1
    assert [(failure.path, failure.code, failure.detail) for failure in failures] == [
        ("b", "same_bytes", "as a"),
        ("c", "same_bytes", "as a"),
    ]
    assert pd.read_parquet(tmp_path / "mine" / "00000.parquet")["captions"][0].tolist() == ["red", "crimson"]


def test_the_limit_takes_the_same_pictures_from_any_order(tmp_path: Path) -> None:
    pairs = [Pair(f"{number * 7 % 10}{'0' * 63}", bytes([number]), str(number), [], "mine") for number in range(10)]
    chosen = []
    for name, order in (("a", pairs), ("b", pairs[::-1])):
        written(iter(order), 4, tmp_path / name)
        chosen.append(sorted(pd.concat(pd.read_parquet(p) for p in shards_below(tmp_path / name))["key"]))
    assert chosen[0] == chosen[1] == [f"{number}{'0' * 63}" for number in range(4)]


def test_several_sources_and_their_failures(mine: Path, in_folder: Path) -> None:
    (mine / "empty.png").write_bytes(b"")
    params = CollectParams.model_validate(
        {"sources": [{"kind": "folder", "name": "second", "path": "mine"}, {"kind": "folder", "name": "mine"}]}
    )
    main(params, mine.parent, in_folder / "raw", in_folder / "metrics.json")
    assert json.loads((in_folder / "raw" / "sources.json").read_text()) == ["second", "mine"]
    assert json.loads((in_folder / "metrics.json").read_text())["mine"] == {
        "pictures": 3,
        "no_caption": 3,
        "fallback_caption": 0,
        "failures": 1,
        "empty_file": 1,
    }
    assert pd.read_parquet(in_folder / "raw" / FAILURES)["source"].tolist() == ["second", "mine"]


def test_two_sources_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="two sources of one name"):
        CollectParams.model_validate({"sources": [{"kind": "openmoji"}, {"kind": "openmoji"}]})


def test_openmoji_has_a_name_or_a_reason_for_every_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DARKROOM_WORKERS", "2")
    found = list(read_openmoji(OpenMoji(kind="openmoji", side=16), Path()))
    pairs = [item for item in found if isinstance(item, Found)]
    assert (len(found), len(pairs)) == (4495, 3953)
    assert all(pa.array(pair.captions).type == pa.string() and pair.license == "CC BY-SA 4.0" for pair in pairs)
    assert found == sorted(found, key=lambda item: item.path.removesuffix(".svg"))


def test_emoji_names_and_motifs() -> None:
    assert name_of([0x1F600]) == "grinning face"
    assert name_of([0x23, 0xFE0F, 0x20E3]) == "keycap #"
    assert name_of([0xE000]) is None
    pilots = [[0x1F468, 0x1F3FD, 0x200D, 0x2708, 0xFE0F], [0x1F469, 0x200D, 0x2708], [0x1F9D1, 0x1F3FF, 0x200D, 0x2708]]
    assert len({motif_of(points) for points in pilots}) == 1
    assert motif_of([0x1F468, 0x200D, 0x1F373]) != motif_of(pilots[0])
