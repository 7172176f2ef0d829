"""Peak memory of a training on this CPU against what `make plan` counts: python -m benchmarks.plan_memory MODEL SIDE
BATCH OPTIMIZER [checkpointing], such as `random:small 256 16 adamw`."""

import sys
import threading
import time
from pathlib import Path

import psutil
import torch

from stages.base.params import BaseParams
from stages.tools.blueprints import blueprint_of
from stages.tools.costs import memory_of, with_params
from stages.tools.workload import measure
from stages.train.optimizers import make_optimizers
from stages.train.params import TrainParams


def main(model: str, side: int, batch: int, optimizer: str, checkpointing: bool) -> None:
    """Three steps, with an average of the weights; what is resident is looked at every millisecond."""
    plan = blueprint_of(BaseParams(model=model), Path("models/tiny-sd"), Path("models/imported"))
    params = with_params(
        TrainParams(), batch_size=batch, optimizer=optimizer, gradient_checkpointing=checkpointing, ema_decay=0.999
    )
    counted = memory_of(measure(plan, params, side), params, on_gpu=False).total
    process = psutil.Process()
    before = top = process.memory_info().rss
    going = True

    def watch() -> None:
        nonlocal top
        while going:
            top = max(top, process.memory_info().rss)
            time.sleep(0.001)

    watcher = threading.Thread(target=watch)
    watcher.start()
    network = plan.make_denoiser().to(memory_format=torch.channels_last).train()
    if checkpointing:
        network.enable_gradient_checkpointing()
    average = [weight.detach().clone() for weight in network.parameters()]
    optimizers = make_optimizers(params, network)
    small, (width, _) = side // plan.factor, plan.family.text_shape(network)
    channels = plan.vae.get("latent_channels", 4)
    for _ in range(3):
        noised, text = torch.randn(batch, channels, small, small), torch.randn(batch, plan.text_length, width)
        network(noised, torch.ones(batch), encoder_hidden_states=text).sample.square().mean().backward()
        for one in optimizers:
            one.step()
            one.zero_grad()
    going = False
    watcher.join()
    del average
    resident = top - before
    print(f"counted {counted / 1e6:.0f} MB, resident {resident / 1e6:.0f} MB, {resident / counted:.2f} times")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4], "checkpointing" in sys.argv[5:])
