"""Parameters of a group in blocks: what belongs to which."""

import torch

from badmm.ivon import IVON


def test_blocks_of_a_group_have_normals_of_their_own() -> None:
    """A group's parameters of two dtypes are two blocks: each continues where the other's places end."""
    wide, narrow = (torch.nn.Parameter(torch.zeros(300, dtype=dtype)) for dtype in (torch.float64, torch.float32))

    def sample(*parameters: torch.nn.Parameter) -> list[torch.Tensor]:
        fresh = [torch.nn.Parameter(p.detach().clone()) for p in parameters]
        optimizer = IVON(fresh, lr=0.1, ess=1.0, hess_init=1.0, weight_decay=0.0, seed=7)
        with optimizer.sampled_params():
            return [p.detach().clone() for p in fresh]

    first, second = sample(wide, narrow)
    (alone,) = sample(narrow)
    assert second.std() > 0.5
    assert not torch.equal(second, alone)
    assert abs(float(torch.corrcoef(torch.stack([first.abs(), second.double().abs()]))[0, 1])) < 0.25
