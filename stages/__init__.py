"""darkroom: image-text pairs in, a Stable Diffusion model you can trust out.

    check       params.yaml                 -> refuse it before any work
    base        a hub id, folder or size    -> models/base
    collect     data/sources, packages      -> data/raw            pictures + captions, failures too
    caption     data/raw                    -> data/captions.parquet  for pictures without, if a model is named
    score       data/raw                    -> data/scores.parquet by models, if some are named: CLIP, classifiers
    inspect     data/raw                    -> data/inspected      measured once, a row a picture
    clean       data/inspected, data/scores -> data/clean          kept or rejected, and why
    preprocess  data/raw, data/clean        -> data/processed      finished pictures; data/conditions beside them
    encode      data/processed, models/base -> data/latents        what training would repeat
    train       data/latents, models/base   -> models/trained      the UNet; from data/processed: VAE, CLIP
    merge       base, trained, imported     -> models/merged/<recipe>  any number of models, LoRAs too
    sample      one model, data/prompts     -> data/samples/<model>
    grid        the models                  -> data/grids          sheets over two settings
    evaluate    models, samples, latents    -> reports/evaluation.json
    report      all of it                   -> reports/index.html

Each stage is a folder whose `run.py` is its story. Stages never import each
other: they meet in files. What two of them need is in `core`. Programs beside
the pipeline are in `tools`.

What follows is all the state that a process gets: only `base`, `collect`, `caption` and `score` may reach a network.
"""

import gc
import os
import sys

if not {"stages.base.run", "stages.collect.run", "stages.caption.run", "stages.score.run"} & set(sys.orig_argv):
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
# Libraries that load leave no garbage, and looking for it takes a fifth of a stage's start: run_stage begins with it.
if any(word.startswith("stages.") and word.endswith(".run") for word in sys.orig_argv):
    gc.disable()
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("ITERATIVE_DO_NOT_TRACK", "1")  # dvclive
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
# One order of additions for cuBLAS: the same bytes on every run on a GPU too.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
