"""Every section of params.yaml and its type. The one place that knows all stages; no stage but this one imports it."""

from typing import Any

from stages.base.params import BaseParams
from stages.caption.params import CaptionParams
from stages.clean.params import CleanParams
from stages.collect.params import CollectParams
from stages.encode.params import EncodeParams
from stages.evaluate.params import EvaluateParams
from stages.grid.params import GridParams
from stages.inspect.params import InspectParams
from stages.merge.params import MergeParams
from stages.preprocess.params import PreprocessParams
from stages.report.params import ReportParams
from stages.sample.params import SampleParams
from stages.score.params import ScoreParams
from stages.train.params import TrainParams

SECTION_TYPES: dict[str, Any] = {
    "base": BaseParams,
    "collect": CollectParams,
    "caption": CaptionParams,
    "score": ScoreParams,
    "inspect": InspectParams,
    "clean": CleanParams,
    "preprocess": PreprocessParams,
    "encode": EncodeParams,
    "train": TrainParams,
    "merge": MergeParams,
    "sample": SampleParams,
    "grid": GridParams,
    "evaluate": EvaluateParams,
    "report": ReportParams,
}
