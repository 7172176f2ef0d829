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
