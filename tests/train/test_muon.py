"""Muon: its steps against the singular value decomposition."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stages.train.muon import Muon, orthogonal


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
