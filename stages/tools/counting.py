"""What a training step asks of a machine, counted on tensors without data: nothing is allocated, no weight is read."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}
# Autocast on CUDA works these out in float32 and keeps their input so (torch's page on automatic mixed precision).
NORMS = (torch.nn.GroupNorm, torch.nn.LayerNorm)


@dataclass(frozen=True)
class Count:
    """What a step asks for.

    forward, training: FLOPs a picture, 2 a multiply-add, of matrices, convolutions and attention; training is forward
    and backward, with what is worked out twice. kept: bytes of activations that each picture holds for the backward
    pass. shared: bytes held so whatever the number of pictures.
    """

    forward: int
    training: int
    kept: int
    shared: int = 0


@contextmanager
def norms_in_float32() -> Iterator[None]:
    """As autocast on CUDA has it, and autocast on a CPU, on which is counted, has not."""

    def widen(module: torch.nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...] | None:
        return tuple(value.float() for value in inputs) if isinstance(module, NORMS) else None

    hook = register_module_forward_pre_hook(widen)  # type: ignore[arg-type]  # what it gives back counts, which stubs deny
    try:
        yield
    finally:
        hook.remove()


def _attention(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return int(sdpa_flop_count(query, key, value))  # type: ignore[no-untyped-call]  # torch has no types here


def _attention_backward(grad: Any, query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return int(sdpa_backward_flop_count(grad, query, key, value))  # type: ignore[no-untyped-call]  # as above


# The kernel that keeps no matrix of attention, as those on GPUs do; torch's counter doesn't know the CPU's.
ATTENTION = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
}


def without_data() -> FakeTensorMode:
    """Tensors made inside have a shape and a type, and no memory; they are as on a CPU."""
    return FakeTensorMode()


def enter(module: torch.nn.Module) -> None:
    """Bring a module that was made on the meta device into `without_data`."""
    for part in module.modules():
        for name, weight in part._parameters.items():
            if weight is not None and weight.is_meta:
                fresh = torch.empty(weight.shape, dtype=weight.dtype)
                part._parameters[name] = torch.nn.Parameter(fresh, requires_grad=weight.requires_grad)
        for name, buffer in part._buffers.items():
            if buffer is not None and buffer.is_meta:
                part._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype)


def count_forward(call: Callable[[], torch.Tensor]) -> int:
    """FLOPs of a call that nothing is learned from, inside `without_data`."""
    with torch.no_grad(), FlopCounterMode(display=False, custom_mapping=ATTENTION) as counter:
        call()
    return int(counter.get_total_flops())


def count_step(losses: Callable[[int], torch.Tensor], modules: list[torch.nn.Module], precision: str) -> Count:
    """What `losses` of so many pictures ask for, inside `without_data`. modules: whose weights are no activations.

    Two passes: what is held whatever the number of pictures, such as weights in half precision, is told apart by them.
    """
    with ExitStack() as stack:
        counter = stack.enter_context(FlopCounterMode(display=False, custom_mapping=ATTENTION))
        if precision in HALF:
            stack.enter_context(norms_in_float32())
        loss, one = forward(losses, 1, modules, precision)
        ahead = counter.get_total_flops()
        if loss.requires_grad:
            torch.autograd.backward(loss)
        training = counter.get_total_flops()
        for module in modules:
            module.zero_grad(set_to_none=True)
        _, two = forward(losses, 2, modules, precision)
    return Count(ahead, training, two - one, max(0, 2 * one - two))


def forward(
    losses: Callable[[int], torch.Tensor], pictures: int, modules: list[torch.nn.Module], precision: str
) -> tuple[torch.Tensor, int]:
    """The loss of so many pictures, and the bytes held for its backward pass: each storage once."""
    owned = {
        tensor.untyped_storage()._cdata for module in modules for tensor in (*module.parameters(), *module.buffers())
    }
    kept: dict[int, torch.Tensor] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage()._cdata not in owned:
            kept[tensor.untyped_storage()._cdata] = tensor
        return tensor

    autocast = torch.autocast("cpu", HALF.get(precision, torch.bfloat16), enabled=precision in HALF)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), autocast:
        loss = losses(pictures).float().sum()
    return loss, sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


def bytes_held(
    losses: Callable[[int], torch.Tensor], pictures: int, modules: list[torch.nn.Module], precision: str
) -> int:
    """The bytes that `losses` of so many pictures holds for its backward pass."""
    with norms_in_float32() if precision in HALF else nullcontext():
        return forward(losses, pictures, modules, precision)[1]
