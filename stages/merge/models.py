"""The models that go into a merge, as tensors by one kind of name, wherever they come from: read from headers alone.

A tensor is called as in a diffusers folder, `<part>.<key>`, by `stages.core.original_names.current_name`.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from stages.core.errors import StageError
from stages.core.original_names import PREFIXES, Family, Link, current_name, family_of_keys, link_keys
from stages.merge.headers import Header, Place, count, read_header

WEIGHTS = ("diffusion_pytorch_model", "model")  # a part's file, by diffusers and by transformers
CLASSES = {
    "StableDiffusionPipeline": "sd1",
    "StableDiffusionXLPipeline": "sdxl",
    "StableDiffusion3Pipeline": "sd3",
}
AVERAGED = "model_ema."  # the UNet's weights once more, averaged over training: in single files only
VAE = "vae"  # the family of an autoencoder alone: it goes with any
VAE_KEYS = ("encoder.", "decoder.", "quant_conv.", "post_quant_conv.", "loss.", "model_ema.")
NOT_MERGED = {"safety_checker", "feature_extractor", "image_encoder"}
PREDICTIONS = {"v": "v_prediction", "v_prediction": "v_prediction", "epsilon": "epsilon"}


@dataclass(frozen=True)
class Model:
    """One model's headers. label: the place as params name it. path: folder or file.

    tensors: by name. own: the name that each has in its part's file. files: those that hold tensors.
    prediction, scaling: None where a single file doesn't say.
    links, rest: of a single file, its keys beside the names, and the places of tensors that no folder has.
    """

    label: str
    path: Path
    family: str
    tensors: dict[str, Place]
    own: dict[str, str]
    metadata: dict[str, dict[str, str]]
    prediction: str | None
    scaling: float | None
    links: list[Link]
    rest: dict[str, Place]

    @property
    def parts(self) -> set[str]:
        return {name.partition(".")[0] for name in self.tensors}

    @property
    def files(self) -> list[Path]:
        return sorted({place.path for place in [*self.tensors.values(), *self.rest.values()]})


def open_model(label: str, path: Path) -> Model:
    """A folder's or a single file's, of a pipeline or of a VAE alone. Raises StageError if it is none, or broken."""
    if not path.is_dir():
        return _open_file(label, path)
    if not (path / "model_index.json").is_file() and (path / "config.json").is_file():
        return _open_vae(label, path)
    return _open_folder(label, path)


def _open_vae(label: str, folder: Path) -> Model:
    """As VAEs are shared by themselves: one part without a pipeline around it."""
    config = _json(folder / "config.json")
    if config.get("_class_name") != "AutoencoderKL":
        raise StageError(str(folder), f"is a {config.get('_class_name')}", "use a pipeline or an AutoencoderKL")
    tensors, metadata = dict[str, Place](), {}
    for path in weight_files(folder):
        header = read_header(path)
        metadata[path.name] = header.metadata
        tensors |= {current_name(f"vae.{key}"): place for key, place in header.tensors.items()}
    return Model(label, folder, VAE, tensors, {}, metadata, None, config.get("scaling_factor"), [], {})


def _open_folder(label: str, folder: Path) -> Model:
    index = _json(folder / "model_index.json")
    kind = index.get("_class_name")
    family = CLASSES.get(str(kind))
    if family is None:
        raise StageError(str(folder), f"is a {kind}", f"use one of {', '.join(CLASSES)}")
    if family == "sd1" and _json(folder / "text_encoder" / "config.json").get("hidden_act") == "gelu":
        family = "sd2"  # OpenCLIP's text encoder
    tensors, own, metadata = {}, {}, {}
    for part in sorted(path.name for path in folder.iterdir() if path.name in index and path.name not in NOT_MERGED):
        for path in weight_files(folder / part):
            header = read_header(path)
            metadata[f"{part}/{path.name}"] = header.metadata
            for key, place in header.tensors.items():
                name = current_name(f"{part}.{key}")
                tensors[name], own[name] = place, key
    schedule = _json(folder / "scheduler" / "scheduler_config.json")
    return Model(
        label,
        folder,
        family,
        tensors,
        own,
        metadata,
        schedule.get("prediction_type", "epsilon") if family != "sd3" else "flow",
        _json(folder / "vae" / "config.json").get("scaling_factor", 0.18215),
        [],
        {},
    )


def weight_files(part: Path) -> list[Path]:
    """The files that hold a part's tensors: one, or those that an index lists; fp16 variants only where no other is."""
    for stem in WEIGHTS:
        for variant in ("", ".fp16"):
            index = part / f"{stem}.safetensors.index{variant}.json"
            if index.is_file():
                return [part / name for name in sorted(set(_json(index)["weight_map"].values()))]
            if (part / f"{stem}{variant}.safetensors").is_file():
                return [part / f"{stem}{variant}.safetensors"]
    return []


def _open_file(label: str, path: Path) -> Model:
    header = read_header(path)
    if all(key.startswith(VAE_KEYS) for key in header.tensors):
        return _open_vae_file(label, path, header)
    family = family_of_keys(header.tensors)
    links, rest = link_keys(family, header.tensors)
    averaged = [key for key in rest if key.startswith(AVERAGED)]
    links += [Link(key, (key,)) for key in averaged]
    tensors = {name: place for link in links for name, place in _places(link, header).items()}
    said = PREDICTIONS.get(header.metadata.get("modelspec.prediction_type", ""))
    if "v_pred" in header.tensors:  # a key that holds nothing but this
        said = "v_prediction"
    return Model(
        label,
        path,
        family,
        tensors,
        {},
        {path.name: header.metadata},
        said,
        None,
        links,
        {key: header.tensors[key] for key in rest if not key.startswith(AVERAGED)},
    )


def _open_vae_file(label: str, path: Path, header: Header) -> Model:
    """The VAE's part of a single file, whose keys have lost their prefix."""
    prefix = PREFIXES["sd1"]["vae"]
    whole = Header({f"{prefix}{key}": place for key, place in header.tensors.items()}, header.metadata)
    links, _ = link_keys("sd1", whole.tensors)
    tensors = {name: place for link in links for name, place in _places(link, whole).items()}
    return Model(label, path, VAE, tensors, {}, {path.name: header.metadata}, None, None, [], {})


def _places(link: Link, header: Header) -> dict[str, Place]:
    """Where the folder's tensors lie in the file: pieces of stacked ones lie one behind the other."""
    whole = header.tensors[link.key]
    match link.form:
        case "pointwise":
            return {link.names[0]: replace(whole, shape=whole.shape[:2])}
        case "transposed":
            return {link.names[0]: replace(whole, shape=whole.shape[::-1], transposed=True)}
        case "stacked":
            shape = (whole.shape[0] // len(link.names), *whole.shape[1:])
            size = count(shape) * whole.dtype.itemsize
            return {
                name: replace(whole, start=whole.start + number * size, shape=shape)
                for number, name in enumerate(link.names)
            }
        case "same":
            return {link.names[0]: whole}


def known_family(model: Model) -> Family:
    """The family, if it has original key names. Raises StageError if not."""
    for family in PREFIXES:
        if family == model.family:
            return family
    raise StageError(model.label, f"is a {model.family}, which has no such key names", "leave this knob out")


def _json(path: Path) -> Mapping[str, Any]:
    try:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise StageError(str(path), f"can't be read ({error.strerror})", "use a whole diffusers folder") from None
    except ValueError:
        raise StageError(str(path), "is no JSON", "use a whole diffusers folder") from None
    return values
