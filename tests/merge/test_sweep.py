"""A sweep of ratios, as DVC runs it: five recipes, five models, one plot."""

from pathlib import Path

import pandas as pd
import pytest
import yaml

from stages.evaluate.run import by_ratio
from tests.conftest import commit, make_project, run
from tests.merge.models import Kitchen, near, random_tensors


def test_rows_are_in_the_order_of_ratios(kitchen: Kitchen) -> None:
    kitchen.put(random_tensors(0), near(random_tensors(0), 1))
    kitchen.cook("b", ratio=0.9)
    kitchen.cook("a", method="slerp", ratio=0.1)
    kitchen.cook("c")
    table = by_ratio(kitchen.out().parent, {"b": 3.0, "a": 1.0, "c": 2.0})
    assert table.to_dict("list") == {
        "recipe": ["a", "c", "b"],
        "method": ["slerp", "weighted_sum", "weighted_sum"],
        "ratio": [0.1, 0.5, 0.9],
        "loss": [1.0, 2.0, 3.0],
    }


@pytest.mark.slow
def test_five_ratios_and_their_plot(tmp_path: Path) -> None:
    project = make_project(tmp_path)
    params = yaml.safe_load((project / "params.yaml").read_text())
    params |= {"sample": {"prompts": ["a drawing"], "steps": 1}, "train": {**params["train"], "steps": 2}}
    params["merge"] = {f"ratio_{number}0": {"ratio": number / 10} for number in (1, 3, 5, 7, 9)}
    (project / "params.yaml").write_text(yaml.safe_dump(params))
    commit(project, "Five ratios")
    run(project, "dvc", "repro", "evaluate")
    table = pd.read_csv(project / "reports" / "evaluation" / "merges.csv")
    assert table["ratio"].tolist() == [0.1, 0.3, 0.5, 0.7, 0.9]
    assert table["loss"].is_unique
    run(project, "dvc", "plots", "show", "-o", "shown")
    page = (project / "shown" / "index.html").read_text()
    assert "Validation loss by ratio of a merge" in page
    edited = yaml.safe_load((project / "params.yaml").read_text())
    edited["merge"]["ratio_50"]["method"] = "slerp"
    (project / "params.yaml").write_text(yaml.safe_dump(edited))
    told = run(project, "dvc", "repro", "merge").stdout
    ran = [line for line in told.splitlines() if line.startswith("Running stage 'merge@")]
    assert ran == ["Running stage 'merge@ratio_50':"]
