"""evaluate: how models are compared."""

from pydantic import Field

from stages.core.params import Section


class EvaluateParams(Section):
    pictures: int = Field(256, ge=1, description="held-out pictures for the validation loss, at most")
    bins: int = Field(10, ge=1, le=100, description="timesteps at which it is measured")
    seed: int = Field(0, ge=0, description="of its noise")
