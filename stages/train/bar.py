"""What a person sees while a training goes on: how fast, how long still, and what it has cost."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from accelerate import Accelerator
from rich.progress import ProgressColumn, Task
from rich.text import Text

from stages.core.engine import progress
from stages.core.times import price
from stages.train.params import TrainParams


class Pictures(ProgressColumn):
    """Pictures a second, counting those seen again."""

    def __init__(self, a_step: int) -> None:
        super().__init__()
        self.a_step = a_step

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed * self.a_step:,.1f} pictures/s" if task.speed else "")


class Cost(ProgressColumn):
    """What the time so far costs, where DARKROOM_PRICE says what an hour does."""

    def __init__(self, price: float) -> None:
        super().__init__()
        self.price = price

    def render(self, task: Task) -> Text:
        return Text(f"{task.elapsed / 3600 * self.price:,.2f} so far" if task.elapsed and self.price else "")


@contextmanager
def training_bar(params: TrainParams, done: int, accelerator: Accelerator) -> Iterator[Callable[[], None]]:
    """A bar on a terminal; at the end one line of how fast it went, on which no result depends."""
    a_step = params.batch_size * params.accumulation
    began, steps = time.monotonic(), 0
    with progress(Pictures(a_step), Cost(price())) as bar:
        task = bar.add_task("train", total=params.steps, completed=done)

        def advance() -> None:
            nonlocal steps
            steps += 1
            bar.advance(task)

        yield advance
    if accelerator.is_main_process and steps:
        seconds = time.monotonic() - began
        print(f"{a_step * steps / seconds:,.1f} pictures a second, validation and previews included")
