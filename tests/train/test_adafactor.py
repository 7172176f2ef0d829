"""Adafactor: a step by hand, the same algorithm as transformers', and how little it keeps."""

import pytest
import torch
from diffusers import UNet2DConditionModel
from transformers.optimization import Adafactor as TransformersAdafactor

from stages.train.adafactor import Adafactor


def test_a_step_by_hand() -> None:
    """Squares (1 4; 9 16): row means 2.5, 12.5, column means 5, 10, of all 7.5; so V = (5/3 10/3; 25/3 50/3)."""
    weight = torch.nn.Parameter(torch.ones(2, 2))
    weight.grad = torch.tensor([[1.0, -2.0], [3.0, 4.0]])
    Adafactor([weight], lr=0.1, weight_decay=0.5).step()
    squares_of_steps = torch.tensor([[0.6, 1.2], [1.08, 0.96]])  # their mean is below 1: nothing is clipped
    expected = 0.95 - 0.1 * squares_of_steps.sqrt() * torch.tensor([[1, -1], [1, 1]])
    torch.testing.assert_close(weight.detach(), expected)


def test_a_gradient_that_jumps_is_clipped() -> None:
    """V after 1 and 100: 1 + 2^-0.8 x 99 = 57.86, so 10 / 7.607 = 1.31 would be taken, and 1 is."""
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = Adafactor([weight], lr=0.1)
    for gradient in (1.0, 10.0):
        weight.grad = torch.tensor([gradient])
        optimizer.step()
    assert optimizer.state[weight]["square"].item() == pytest.approx(57.8606, rel=1e-5)
    assert weight.item() == pytest.approx(-0.2)


@pytest.mark.parametrize("shape", [(7,), (24, 40), (40, 24)])
def test_matrices_and_vectors_as_in_transformers(shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(shape, generator=generator)
    ours, theirs = torch.nn.Parameter(start.clone()), torch.nn.Parameter(start.clone())
    optimizer = Adafactor([ours], lr=0.05, weight_decay=0.1)
    other = TransformersAdafactor([theirs], lr=0.05, weight_decay=0.1, scale_parameter=False, relative_step=False)
    for step in range(8):
        gradient = torch.randn(shape, generator=generator) * 3**step
        ours.grad, theirs.grad = gradient.clone(), gradient.clone()
        optimizer.step()
        other.step()
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_a_convolution_is_a_matrix() -> None:
    generator = torch.Generator().manual_seed(0)
    convolution = torch.nn.Parameter(torch.zeros(32, 16, 3, 3).contiguous(memory_format=torch.channels_last))
    matrix = torch.nn.Parameter(torch.zeros(32, 144))
    optimizer = Adafactor([convolution, matrix], lr=0.1)
    for _ in range(3):
        convolution.grad = torch.randn(convolution.shape, generator=generator)
        matrix.grad = convolution.grad.flatten(1)
        optimizer.step()
    torch.testing.assert_close(convolution.detach().flatten(1), matrix.detach())
    kept = {name: value.shape for name, value in optimizer.state[convolution].items() if name != "step"}
    assert kept == {"row": (32,), "column": (144,)}


def test_no_gradient_no_step() -> None:
    weight = torch.nn.Parameter(torch.ones(2, 2))
    weight.grad = torch.zeros(2, 2)
    Adafactor([weight], lr=0.1).step()
    assert torch.equal(weight, torch.ones(2, 2))


def test_how_little_it_keeps_of_stable_diffusion() -> None:
    """Its class's own figures, of the UNet of version 1.5, without memory for either."""
    with torch.device("meta"):
        unet = UNet2DConditionModel(cross_attention_dim=768, attention_head_dim=8, sample_size=64)
    for weight in unet.parameters():
        weight.grad = torch.empty_like(weight)
    assert sum(weight.numel() for weight in unet.parameters()) == 859_520_964
    kept = []
    for optimizer in (
        Adafactor(unet.parameters(), lr=1e-5),
        TransformersAdafactor(unet.parameters(), lr=1e-5, scale_parameter=False, relative_step=False),
    ):
        optimizer.step()
        kept.append(sum(v.numel() for state in optimizer.state.values() for v in state.values() if torch.is_tensor(v)))
    assert kept[0] == pytest.approx(1.5e6, rel=0.01)
    assert kept[1] == pytest.approx(458e6, rel=0.01)
