"""Where work runs changes nothing."""

import operator
from functools import partial

import pytest

from stages.core.engine import map_shards, worker_count
from stages.core.errors import StageError


@pytest.mark.parametrize("workers", ["1", "3"])
def test_results_come_in_the_order_of_the_tasks(monkeypatch: pytest.MonkeyPatch, workers: str) -> None:
    monkeypatch.setenv("DARKROOM_WORKERS", workers)
    assert worker_count() == int(workers)
    assert list(map_shards(partial(operator.mul, 2), range(20), "test")) == list(range(0, 40, 2))


@pytest.mark.parametrize("workers", ["1", "2"])
def test_an_error_in_a_worker_is_raised_here(monkeypatch: pytest.MonkeyPatch, workers: str) -> None:
    monkeypatch.setenv("DARKROOM_WORKERS", workers)
    with pytest.raises(ZeroDivisionError):
        list(map_shards(partial(operator.floordiv, 1), [1, 0, 2], "test"))


def refuse(number: int) -> int:
    raise StageError("here", f"{number} is odd", "even it out")


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_stage_error_travels_whole(monkeypatch: pytest.MonkeyPatch, workers: str) -> None:
    monkeypatch.setenv("DARKROOM_WORKERS", workers)
    with pytest.raises(StageError, match=r"^here: 3 is odd; even it out$"):
        list(map_shards(refuse, [3, 3], "test"))


@pytest.mark.parametrize("wanted", ["two", "0", "-1"])
def test_odd_worker_counts_are_refused(monkeypatch: pytest.MonkeyPatch, wanted: str) -> None:
    monkeypatch.setenv("DARKROOM_WORKERS", wanted)
    with pytest.raises(StageError, match="set it to a whole number from 1"):
        worker_count()


def test_no_tasks_are_no_work() -> None:
    assert not list(map_shards(operator.neg, [], "test"))
