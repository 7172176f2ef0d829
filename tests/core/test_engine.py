"""Where work runs changes nothing."""

import operator
import os
import time
from collections.abc import Iterator
from functools import partial

import psutil
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


@pytest.mark.parametrize("wanted", ["0", "much", "nan", "-2", "inf"])
def test_odd_memory_is_refused(monkeypatch: pytest.MonkeyPatch, wanted: str) -> None:
    monkeypatch.setenv("DARKROOM_MEMORY", wanted)
    with pytest.raises(StageError, match=f"DARKROOM_MEMORY: is '{wanted}'; set it to the GiB that a task may need"):
        list(map_shards(operator.neg, [1, 2], "test"))


def process(_: int) -> int:
    time.sleep(0.2)
    return os.getpid()


def test_no_more_at_once_than_there_is_memory_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DARKROOM_WORKERS", "2")
    assert len(set(map_shards(process, range(6), "test"))) == 2
    monkeypatch.setenv("DARKROOM_MEMORY", f"{psutil.virtual_memory().total / 2**30 * 0.7:.3f}")
    assert set(map_shards(process, range(3), "test")) == {os.getpid()}


def slowly(number: int) -> int:
    time.sleep(0.05)
    return number


def test_tasks_are_made_as_they_are_handed_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DARKROOM_WORKERS", "2")
    made: list[int] = []

    def tasks() -> Iterator[int]:
        for number in range(30):
            made.append(number)
            yield number

    results = map_shards(slowly, tasks(), "test", 30)
    assert next(results) == 0
    assert len(made) < 30
    assert list(results) == list(range(1, 30))
