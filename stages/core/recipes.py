"""Which models a run makes. A stage that imports this reads the names in the section `merge`; dvc.yaml says so."""

from pathlib import Path

from stages.core.params import read_params


def model_folders(base: Path, trained: Path, merged: Path) -> dict[str, Path]:
    """Each model's folder by its name: base, trained, then the recipes as params.yaml lists them.

    Not by listing `merged`: the folder of a recipe that was taken out stays there.
    """
    recipes = read_params(Path("params.yaml")).get("merge") or {}
    return {"base": base, "trained": trained, **{name: merged / name for name in recipes}}
