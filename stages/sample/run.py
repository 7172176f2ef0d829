"""sample: let one model draw the prompts.

in    one model
out   data/samples/<name>  <prompt>-<seed>.png with its settings inside, grid.png, samples.json
"""

from pathlib import Path

from PIL.PngImagePlugin import PngInfo

from stages.core.families.known import family_of, load_pipeline
from stages.core.files import file_digest, replacing, write_json
from stages.core.gpus import one_gpu
from stages.core.models import best_device
from stages.core.sampling import Drawing, contact_sheet, draw, set_scheduler, side_of
from stages.core.stage import run_stage
from stages.core.weights import WEIGHTS
from stages.sample.parameters import parameters_text
from stages.sample.params import SampleParams


def main(params: SampleParams, model: Path, out: Path) -> None:
    """Draw prompts x seeds, name each picture by the two, and lay all on one sheet."""
    pipeline = load_pipeline(model).to(best_device())
    set_scheduler(pipeline, params.scheduler)
    side = params.side or side_of(pipeline)
    weights = file_digest(model / family_of(model).denoiser / WEIGHTS)
    drawings = [Drawing(prompt, seed) for prompt in params.prompts for seed in params.seeds]
    pictures = draw(pipeline, drawings, params.steps, params.guidance, params.negative, side, params.batch_size)
    names = [f"{p:03d}-{seed}.png" for p in range(len(params.prompts)) for seed in params.seeds]
    with replacing(out) as folder:
        for picture, drawing, name in zip(pictures, drawings, names, strict=True):
            information = PngInfo()
            information.add_text("parameters", parameters_text(params, drawing, side, weights))
            picture.save(folder / name, pnginfo=information)
        columns = max(1, 8 // len(params.seeds)) * len(params.seeds)
        contact_sheet(pictures, [drawing.prompt for drawing in drawings], columns).save(folder / "grid.png")
        listed = [
            {"file": name, "prompt": drawing.prompt, "seed": drawing.seed}
            for name, drawing in zip(names, drawings, strict=True)
        ]
        write_json(folder / "samples.json", {"weights_sha256": weights, "pictures": listed})
    print(f"{len(pictures)} pictures of {side} x {side} px")


if __name__ == "__main__":
    run_stage(main, one_gpu)
