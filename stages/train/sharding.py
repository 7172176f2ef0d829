"""What several processes hold together: weights split over them (FSDP), and the state that the first one read.

A split tensor is a DTensor: each process has some of its rows. All functions but `part_of` and `split_again` are
called by every process at the same time.
"""

from collections.abc import Iterable
from functools import partial
from typing import Any, TypeVar, cast

import torch
from torch import distributed
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer
from torch.utils._pytree import tree_map_only

Value = TypeVar("Value")


def blocks_of(model: torch.nn.Module) -> list[str]:
    """Classes of the parts that are gathered and let go one after the other: those that libraries call whole."""
    named = {name for module in model.modules() for name in getattr(module, "_no_split_modules", None) or ()}
    return sorted(named & {type(module).__name__ for module in model.modules()})


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """All rows of a split tensor; another one as it is."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def part_of(tensor: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """This process's share of a whole tensor, split as `like` is; the tensor itself where that is whole."""
    if isinstance(tensor, DTensor) or not isinstance(like, DTensor):
        return tensor
    return distribute_tensor(tensor, like.device_mesh, like.placements, src_data_rank=None)


def gathered(values: Value, keep: bool) -> Value:
    """The same with every split tensor whole, on the CPU; empty in processes that don't keep it."""

    def one(tensor: torch.Tensor) -> torch.Tensor:
        if not isinstance(tensor, DTensor):
            return tensor
        full = tensor.full_tensor()
        return full.cpu() if keep else full.new_empty(0)

    return cast("Value", tree_map_only(torch.Tensor, one, values))


def announced(values: Value) -> Value:
    """The first process's values in every process; tensors keep their form alone (device meta), see `received`."""
    if not shared():
        return values

    def form(tensor: torch.Tensor) -> torch.Tensor:
        return torch.empty(tensor.shape, dtype=tensor.dtype, device="meta")

    first = distributed.get_rank() == 0
    said = [tree_map_only(torch.Tensor, form, values) if first else None]
    distributed.broadcast_object_list(said, src=0)
    return values if first else cast("Value", said[0])


def received(tensor: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """The first process's tensor on the device of `like`; where it has the shape of `like`, split and laid out so."""
    if shared():
        there = like.device
        tensor = torch.empty_like(tensor, device=there) if tensor.is_meta else tensor.to(there).contiguous()
        distributed.broadcast(tensor, src=0)
    if tensor.shape != like.shape:
        return tensor.to(like.device)
    if isinstance(like, DTensor):
        return part_of(tensor, like)
    return torch.empty_like(like, dtype=tensor.dtype).copy_(tensor)


def restore(optimizer: Optimizer, saved: dict[str, Any]) -> None:
    """Have an optimiser go on from a state that `gathered` gave, however its weights are split now."""
    weights = [weight.detach() for group in optimizer.param_groups for weight in group["params"]]
    states = {
        number: tree_map_only(torch.Tensor, partial(received, like=weights[number]), state)
        for number, state in saved["state"].items()
    }
    optimizer.load_state_dict({**saved, "state": states})


def shared() -> bool:
    """Whether there are several processes."""
    return distributed.is_initialized() and distributed.get_world_size() > 1


def split_again(modules: Iterable[torch.nn.Module]) -> None:
    """Let go what a forward pass without a backward one has gathered: it would not see a change of the weights."""
    for module in modules:
        if isinstance(module, FSDPModule):
            module.reshard()
