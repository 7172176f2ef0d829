"""Split tensors in a group of one process: the same numbers as whole ones."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import distributed
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Shard, distribute_tensor

from stages.train.launch import SPLIT_OPTIMIZERS
from stages.train.optimizers import make_optimizers
from stages.train.params import TrainParams
from stages.train.sharding import announced, blocks_of, gathered, part_of, received, restore, whole


@pytest.fixture
def mesh(tmp_path: Path) -> Iterator[DeviceMesh]:
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/group", rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    distributed.destroy_process_group()


def test_what_is_split_is_made_whole(mesh: DeviceMesh) -> None:
    tensor, plain = torch.randn(6, 3), torch.randn(2)
    split = distribute_tensor(tensor, mesh, [Shard(0)])
    assert torch.equal(whole(split), tensor)
    assert whole(plain) is plain
    part = part_of(tensor, split)
    assert isinstance(part, DTensor)
    assert torch.equal(part.to_local(), tensor)
    assert part_of(plain, tensor) is plain
    kept: dict[str, Any] = gathered({"a": [split, 3], "b": plain}, keep=True)
    assert torch.equal(kept["a"][0], tensor)
    assert kept["a"][1] == 3
    assert kept["b"] is plain
    assert gathered([split], keep=False)[0].numel() == 0
    assert announced(kept) is kept  # there is nobody else
    assert isinstance(received(tensor, split), DTensor)


def test_a_tensor_is_laid_out_as_what_it_belongs_to() -> None:
    """A fused optimiser reads both in the order in which they lie in memory."""
    weight = torch.randn(8, 4, 3, 3).to(memory_format=torch.channels_last)
    saved = torch.randn(8, 4, 3, 3)
    found = received(saved, weight)
    assert found.stride() == weight.stride()
    assert torch.equal(found, saved)
    count = torch.tensor(5.0)
    assert torch.equal(received(count, weight), count)


class Network(torch.nn.Sequential):
    _no_split_modules = ("Linear", "Elsewhere")

    def __init__(self) -> None:
        super().__init__(torch.nn.Conv2d(16, 32, 3), torch.nn.Linear(32, 64), torch.nn.LayerNorm(64))
        generator = torch.Generator().manual_seed(0)
        for weight in self.parameters():
            weight.data = torch.randn(weight.shape, generator=generator)


def test_blocks_are_those_that_are_there() -> None:
    assert blocks_of(torch.nn.ModuleList([Network()])) == ["Linear"]


def take_steps(network: torch.nn.Module, optimizers: list[Any], steps: range) -> None:
    for step in steps:
        generator = torch.Generator().manual_seed(step)
        for weight in network.parameters():
            weight.grad = part_of(torch.randn(weight.shape, generator=generator), weight.detach())
        for optimizer in optimizers:
            optimizer.step()


@pytest.mark.parametrize("name", SPLIT_OPTIMIZERS)
@pytest.mark.parametrize("splits", [(True, True), (True, False), (False, True)])
def test_an_optimizer_goes_on_however_its_weights_are_split(
    mesh: DeviceMesh, name: str, splits: tuple[bool, bool]
) -> None:
    """Three steps, saved and restored, then three more: as six in one go with whole weights."""
    if name == "lion":
        pytest.importorskip("lion_pytorch")
    params = TrainParams(optimizer=name, learning_rate=1e-2)  # type: ignore[arg-type]  # one of its names
    plain = Network()
    take_steps(plain, make_optimizers(params, plain), range(6))
    weights: dict[str, torch.Tensor] = {}
    states: list[dict[str, Any]] = []
    for first, split in zip((0, 3), splits, strict=True):
        network = Network()
        if split:
            fully_shard(network, mesh=mesh)
        optimizers = make_optimizers(params, network)
        for key, weight in network.named_parameters():
            if weights:
                weight.data.copy_(received(weights[key], weight.data))
        for optimizer, state in zip(optimizers, states, strict=bool(states)):
            restore(optimizer, state)
        take_steps(network, optimizers, range(first, first + 3))
        weights = gathered({key: weight.detach() for key, weight in network.named_parameters()}, keep=True)
        states = gathered([optimizer.state_dict() for optimizer in optimizers], keep=True)
    for key, weight in plain.named_parameters():
        assert torch.allclose(weights[key], weight, rtol=1e-6, atol=1e-6)
