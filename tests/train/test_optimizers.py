"""Muon: its steps against the singular value decomposition, and who gets which weight."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.optim import AdamW

from stages.train.optimizers import Muon, make_optimizers, orthogonal
from stages.train.params import TrainParams


@given(st.integers(2, 40), st.integers(2, 160), st.integers(0, 3))
def test_every_direction_counts_about_the_same(rows: int, columns: int, seed: int) -> None:
    matrix = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))
    u, values, v = torch.linalg.svd(matrix, full_matrices=False)
    kept = values > values[0] / 100
    inner = (u.T @ orthogonal(matrix) @ v.T)[kept][:, kept]
    assert (inner.diag() > 0.5).all()
    assert (inner.diag() < 1.5).all()
    assert (inner - inner.diag().diag()).abs().max() < 1e-3


def test_long_and_nearly_square_matrices_go_through_the_same_polynomial() -> None:
    square = torch.randn(24, 40, generator=torch.Generator().manual_seed(1))
    padded = torch.cat([square, torch.zeros(24, 40)], dim=1)  # twice as long: the short way
    torch.testing.assert_close(orthogonal(padded)[:, :40], orthogonal(square), rtol=1e-4, atol=1e-5)


def test_a_step_is_as_long_as_adamws() -> None:
    weight = torch.nn.Parameter(torch.zeros(64, 32, 3, 3))
    weight.grad = torch.randn(weight.shape, generator=torch.Generator().manual_seed(0))
    Muon([weight], lr=0.01, weight_decay=0.0).step()
    assert weight.square().mean().sqrt().item() == pytest.approx(0.2 * 0.01, rel=0.2)  # 0.2 of lr: AdamW's own


def test_weight_decay() -> None:
    weight = torch.nn.Parameter(torch.ones(16, 16))
    weight.grad = torch.zeros(16, 16)
    Muon([weight], lr=0.1, weight_decay=0.5).step()
    assert torch.equal(weight, torch.full((16, 16), 0.95))


def test_matrices_and_the_rest() -> None:
    network = torch.nn.Sequential(
        torch.nn.Embedding(32, 32), torch.nn.Conv2d(4, 32, 3), torch.nn.Conv2d(32, 32, 3), torch.nn.Linear(32, 16)
    )
    adamw, muon = make_optimizers(TrainParams(optimizer="muon"), network)
    assert isinstance(adamw, AdamW)
    assert isinstance(muon, Muon)
    shapes = [tuple(weight.shape) for weight in muon.param_groups[0]["params"]]
    assert shapes == [(32, 32, 3, 3), (16, 32)]
    held = [weight for part in (adamw, muon) for group in part.param_groups for weight in group["params"]]
    assert {id(weight) for weight in held} == {id(weight) for weight in network.parameters()}
    assert [type(part) for part in make_optimizers(TrainParams(), network)] == [AdamW]


def test_muon_and_fp16() -> None:
    with pytest.raises(ValueError, match="bf16"):
        TrainParams(optimizer="muon", precision="fp16")
