"""encode: compute once what training would repeat.

in    data/processed, models/base  finished pictures; the VAE and text encoder
out   data/latents                 the VAE's posterior of every picture, the embeddings of every
      distinct caption and of the empty one; see `stages.core.latents`
"""

from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from diffusers import AutoencoderKL
from safetensors.torch import save_file

from stages.core.engine import progress
from stages.core.errors import StageError
from stages.core.files import file_digest, replacing, write_json
from stages.core.latents import CAPTIONS, CAPTIONS_A_SHARD, INDEX
from stages.core.models import best_device, load_text_encoder, load_tokenizer, load_vae
from stages.core.pairs import read_rows, shards_below, write_table
from stages.core.pixels import to_pixels
from stages.core.stage import run_stage
from stages.encode.params import EncodeParams

PLACE = ("shard", "row", "shard_sha256")


def main(params: EncodeParams, processed: Path, base: Path, out: Path, metrics: Path) -> None:
    """Pictures first, then the captions that they use."""
    with replacing(out) as folder:
        rows, psnr = encode_pictures(params, processed, base, folder)
        captions = ["", *sorted({caption for row in rows for caption in row["captions"]} - {""})]
        cut = encode_captions(params, captions, base, folder)
        numbers = {caption: number for number, caption in enumerate(captions)}
        for row in rows:
            row["captions"] = [numbers[caption] for caption in row["captions"]]
        write_table(pa.Table.from_pylist(rows, schema=INDEX), folder / "index.parquet")
    write_json(metrics, {"pictures": len(rows), "captions": len(captions) - 1, "captions_cut": cut, "vae_psnr": psnr})
    print(f"{len(rows)} pictures, {len(captions) - 1} captions ({cut} cut at the model's length), VAE {psnr} dB")


def encode_pictures(params: EncodeParams, processed: Path, base: Path, out: Path) -> tuple[list[dict[str, Any]], float]:
    """Encode shard by shard; give back the index rows, captions still as text, and the VAE's PSNR on some."""
    vae = load_vae(base).to(best_device())
    dtype = getattr(torch, params.dtype)
    index: list[dict[str, Any]] = []
    psnr = None
    (out / "pictures").mkdir()
    with progress() as bar:
        for number, shard in enumerate(bar.track(shards_below(processed), description="encode")):
            rows = list(read_rows([shard], ["image", *(name for name in INDEX.names if name not in PLACE)]))
            pictures = [row.pop("image")["bytes"] for row in rows]
            mean, std = encode_shard(params, vae, pictures, [row["key"] for row in rows])
            psnr = psnr or round_trip_psnr(vae, pictures[:16])
            name = f"pictures/{number:05d}.safetensors"
            save_file({"mean": mean.to(dtype), "std": std.to(dtype)}, out / name)
            digest = file_digest(out / name)
            index += [{**row, "shard": name, "row": place, "shard_sha256": digest} for place, row in enumerate(rows)]
    if psnr is None:
        raise StageError(str(processed), "holds no pictures", "run preprocess again")
    if not any(row["split"] == "validation" for row in index):
        raise StageError("encode", "no picture is held out to compare models on", "raise clean.validation_share")
    return index, psnr


@torch.no_grad()
def encode_shard(
    params: EncodeParams, vae: AutoencoderKL, pictures: list[bytes], keys: list[str]
) -> tuple[torch.Tensor, torch.Tensor]:
    """The VAE's posterior mean and deviation of finished pictures, each (N, C, H, W), unscaled.

    Raises StageError naming the picture if latents are not finite or out of range.
    """
    means, stds = [], []
    for start in range(0, len(pictures), params.batch_size):
        posterior = vae.encode(to_pixels(pictures[start : start + params.batch_size]).to(vae.device)).latent_dist
        means.append(posterior.mean.cpu())
        stds.append(posterior.std.cpu())
    mean = torch.cat(means).contiguous()
    largest = (mean * vae.config.scaling_factor).abs().amax(dim=(1, 2, 3))
    for key, value in zip(keys, largest.tolist(), strict=True):
        if not value <= params.range:  # also where it is no number
            raise StageError(
                "encode",
                f"picture {key} has latents up to {value:.3g}",
                f"use another VAE, or raise encode.range ({params.range})",
            )
    return mean, torch.cat(stds).contiguous()


@torch.no_grad()
def encode_captions(params: EncodeParams, captions: list[str], base: Path, out: Path) -> int:
    """Embed each caption; give back how many were longer than the model reads."""
    device = best_device()
    tokenizer, encoder = load_tokenizer(base), load_text_encoder(base).to(device)
    cut: int = sum(len(ids) > tokenizer.model_max_length for ids in tokenizer(captions).input_ids)
    table = []
    (out / "text").mkdir()
    for start in range(0, len(captions), CAPTIONS_A_SHARD):
        chunk = captions[start : start + CAPTIONS_A_SHARD]
        embeddings = []
        for first in range(0, len(chunk), params.batch_size):
            tokens = tokenizer(
                chunk[first : first + params.batch_size], padding="max_length", truncation=True, return_tensors="pt"
            )
            embeddings.append(encoder(tokens.input_ids.to(device)).last_hidden_state.cpu())
        path = out / f"text/{start // CAPTIONS_A_SHARD:05d}.safetensors"
        save_file({"embeddings": torch.cat(embeddings).to(getattr(torch, params.dtype))}, path)
        digest = file_digest(path)
        table += [{"caption": caption, "shard_sha256": digest} for caption in chunk]
    write_table(pa.Table.from_pylist(table, schema=CAPTIONS), out / "captions.parquet")
    return cut


@torch.no_grad()
def round_trip_psnr(vae: AutoencoderKL, pictures: list[bytes]) -> float:
    """Peak signal-to-noise ratio of decode(encode(x)), dB: well below 20 the VAE doesn't fit the pictures."""
    pixels = to_pixels(pictures).to(vae.device)
    decoded = vae.decode(vae.encode(pixels).latent_dist.mode()).sample
    error = torch.mean((decoded.clamp(-1, 1) - pixels) ** 2)
    return round(float(10 * torch.log10(4 / error)), 2)


if __name__ == "__main__":
    run_stage(main)
