"""What was kept is found again, by other processes too."""

from pathlib import Path

from stages.core.reuse import Reuse


def test_values_are_found_again(tmp_path: Path) -> None:
    reuse = Reuse(tmp_path / "known.sqlite")
    assert reuse.get(["a"]) == {}
    assert not reuse.path.exists()
    reuse.put({})
    assert not reuse.path.exists()
    many = {f"{number:04d}": bytes([number % 256]) for number in range(1200)}
    reuse.put(many)
    reuse.put({"0001": b"new"})
    assert Reuse(reuse.path).get([*many, "absent"]) == {**many, "0001": b"new"}


def test_missing_ones_are_listed_once_in_their_order(tmp_path: Path) -> None:
    reuse = Reuse(tmp_path / "known.sqlite")
    many = [f"{number:04d}" for number in range(1200)]
    assert reuse.missing([*many, "0001"]) == many
    reuse.put(dict.fromkeys(many[1:], b""))
    assert reuse.missing(["z", "0001", "0000", "z", *many]) == ["z", "0000"]
