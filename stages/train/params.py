"""train: how the denoiser learns."""

from importlib.util import find_spec
from typing import Literal

from pydantic import Field, ValidationInfo, field_validator

from stages.core.errors import StageError
from stages.core.params import Section

OPTIONAL = {"adamw_8bit": "bitsandbytes", "lion": "lion-pytorch", "prodigy": "prodigyopt"}


class Diffusion(Section):
    """What a denoiser is asked, and how much each of its errors counts."""

    loss: Literal["mse", "huber", "smooth_l1"] = Field(
        "mse",
        description="of answer and target; huber is the square of errors below huber_c, grows like the error above: "
        "outliers count less (arXiv 2403.16728); smooth_l1 is huber / huber_c",
    )
    huber_c: float = Field(
        0.1, gt=0, le=1, description="error, in units of the noise, above which one is an outlier, at the last timestep"
    )
    huber_schedule: Literal["constant", "exponential", "snr"] = Field(
        "snr", description="how that error comes down from 1, without noise, to huber_c at the last timestep"
    )
    weighting: Literal["none", "min_snr", "debiased"] = Field(
        "none",
        description="of timesteps, by signal-to-noise ratio (SNR): min_snr lets those with little noise count less "
        "(arXiv 2303.09556), debiased those with much noise more (arXiv 2310.08442)",
    )
    snr_gamma: float = Field(
        5.0, gt=0, le=100, description="of min_snr: the SNR from which on a clean picture's error counts no more"
    )
    timesteps: Literal["uniform", "logit_normal", "mode"] = Field(
        "uniform", description="how often each is drawn; logit_normal is Stable Diffusion 3's (arXiv 2403.03206)"
    )
    logit_mean: float = Field(0.0, ge=-5, le=5, description="of logit_normal; above 0: more noise")
    logit_std: float = Field(1.0, gt=0, le=5, description="of logit_normal; the smaller, the less of both ends")
    mode_scale: float = Field(
        1.29, ge=-1, le=1.75, description="of mode; above 0: more from the middle, below: from both ends"
    )
    shift: float = Field(
        1.0,
        gt=0,
        le=100,
        description="of the timesteps towards noise: share t becomes shift t / (1 + (shift - 1) t); "
        "3 for Stable Diffusion 3 at 1024 px; 1: none",
    )
    noise_offset: float = Field(
        0.0,
        ge=0,
        le=1,
        description="deviation of the noise's mean in each channel, for dark and bright pictures; 0.05 to 0.1",
    )
    input_perturbation: float = Field(
        0.0,
        ge=0,
        le=1,
        description="share of more noise in the input, not in the target (arXiv 2301.11706, which took 0.1)",
    )
    mask: str = Field(
        "", description="a condition of preprocess.conditions that says how much each place counts, black 0, white 1"
    )
    zero_terminal_snr: bool = Field(
        False,
        description="the last timestep is noise alone, for black and white pictures (arXiv 2305.08891); "
        "for bases that predict v",
    )


class TextEncoder(Section):
    learns: bool = Field(False, description="train the text encoders too (of lora: adapters of them), T5 never")
    rate: float = Field(0.5, gt=0, le=10, description="of theirs, as a share of learning_rate")


class Lora(Section):
    rank: int = Field(16, ge=1, le=1024, description="of the change: 4 to 128; a file of rank 16 of SD 1.5 has 6.4 MB")
    alpha: int = Field(16, ge=1, description="the change is scaled by alpha / rank")
    targets: list[str] = Field(default=[], description="ends of names of linear layers; empty: the attention's")
    dora: bool = Field(False, description="learn lengths and directions apart (arXiv 2402.09353): better, slower")


class Prior(Section):
    prompt: str = Field("", description='the class, as in "a dog": what must not be forgotten; empty: nothing is')
    pictures: int = Field(
        200, ge=1, description="drawn by the base where no source has the role regularisation; 200 to 1000"
    )
    weight: float = Field(1.0, ge=0, description="of their loss beside that of the training pictures")
    steps: int = Field(25, ge=1, le=1000, description="sampling steps of each")
    guidance: float = Field(5.0, ge=0, le=50, description="classifier-free guidance scale of each")


class Word(Section):
    token: str = Field(
        pattern=r"^<[\w-]+>$", description="the new word, as <cat-toy>: captions or train.prompts say it"
    )
    initialiser: str = Field(min_length=1, description="a word that is near in meaning: what its vectors begin as")
    vectors: int = Field(1, ge=1, le=64, description="more say more, and need more pictures")


class ControlNet(Section):
    condition: str = Field("canny", description="of preprocess.conditions: what the drawn picture is to follow")


class TrainParams(Section):
    method: Literal["full", "lora", "dreambooth", "textual_inversion", "controlnet", "vae", "clip"] = Field(
        "full",
        description="what learns: full, every weight of the denoiser; lora, an adapter; dreambooth, as full, one "
        "thing by a prompt, its class kept (prompts, prior); textual_inversion, words; controlnet, a copy of the UNet "
        "that follows pictures; vae, the autoencoder, from pixels; clip, a new tokenizer, text and picture encoder",
    )
    compute: str = Field(
        "one", pattern=r"^[\w-]+$", description="which file in compute/ says on how many processes and machines"
    )
    switch_compute: bool = Field(
        False,
        description="a stopped training may go on with another number of processes, or weights split otherwise: the "
        "same batches and curve, in other last digits than in one go; the model's metadata says from which step on",
    )
    prompts: list[str] = Field(
        default=[], description='in place of the pictures\' own captions, as "a photo of sks dog"; drawn anew each time'
    )
    text_encoder: TextEncoder = TextEncoder()
    lora: Lora = Lora()
    prior: Prior = Prior()
    words: list[Word] = Field(default=[], description="of method textual_inversion")
    controlnet: ControlNet = ControlNet()
    steps: int = Field(1000, ge=1, description="optimiser steps")
    batch_size: int = Field(4, ge=1, description="pictures a forward pass")
    accumulation: int = Field(1, ge=1, description="forward passes an optimiser step")
    optimizer: Literal["adamw", "adamw_8bit", "adafactor", "lion", "muon", "prodigy"] = Field(
        "adamw",
        description="muon learns from nothing in half the steps and less (matrices by Muon, the rest by AdamW); "
        "adafactor keeps almost no state; prodigy finds its own rate; to be installed: bitsandbytes for adamw_8bit, "
        "lion-pytorch, prodigyopt",
    )
    learning_rate: float = Field(
        1e-5,
        gt=0,
        le=1,
        description="of AdamW; Muon's and Adafactor's steps are as long at the same rate; a third to a tenth for lion; "
        "1.0 for prodigy; 0.1 at most for the others",
    )
    warmup_steps: int = Field(0, ge=0, description="optimiser steps over which the learning rate rises from 0")
    schedule: Literal["constant", "linear", "cosine", "polynomial"] = Field(
        "constant", description="of the learning rate after warm-up"
    )
    end_rate: float = Field(
        0.0, ge=0, le=1, description="where linear, cosine and polynomial end, as a share of learning_rate"
    )
    power: float = Field(2.0, gt=0, le=10, description="of polynomial: 1 is linear; above, it falls faster at first")
    weight_decay: float = Field(0.01, ge=0, description="a step, times the learning rate")
    beta1: float = Field(0.9, ge=0, lt=1, description="of AdamW, Lion and Prodigy: of the gradients' average")
    beta2: float | None = Field(
        None, ge=0, lt=1, description="of the same: of the squares' average, 0.999 if null; Lion's second one, 0.99"
    )
    max_grad_norm: float = Field(1.0, gt=0, description="gradients are clipped to this norm")
    ema_decay: float = Field(
        0.9999, ge=0, lt=1, description="of the averaged weights, which are validated, drawn from and saved; 0: none"
    )
    ema_warmup: int = Field(
        10,
        ge=1,
        description="w: the decay at step n is at most (1 + n) / (w + n), so that the average spans "
        "(w + n) / (w - 1) steps; 1: none",
    )
    objective: Diffusion = Diffusion()
    caption_dropout: float = Field(
        0.1, ge=0, le=1, description="share of pictures seen with the empty caption, which guidance needs"
    )
    precision: Literal["no", "bf16", "fp16"] = Field("no", description="of forward passes; bf16 on recent GPUs")
    gradient_checkpointing: bool = Field(
        False,
        description="work activations out again instead of keeping them: slower by a third, far less memory",
    )
    compile: bool = Field(False, description="torch.compile: some minutes at the start, then up to 1.3 times as fast")
    keep: Literal["last", "best"] = Field(
        "last", description="the weights of the last step, or of the lowest validation loss"
    )
    patience: int = Field(0, ge=0, description="stop after so many validations without a lower loss; 0: never")
    single_file: bool = Field(
        False, description="write checkpoint.safetensors too, the whole model as AUTOMATIC1111 and ComfyUI open it"
    )
    save_dtype: Literal["float32", "float16", "bfloat16"] = Field("float32", description="of the saved weights")
    seed: int = Field(0, ge=0, description="of order, noise, timesteps, captions")
    log_every: int = Field(10, ge=1, description="steps whose mean loss is one point of the curve")
    loss_bins: int = Field(4, ge=1, le=100, description="equal parts of the timesteps with a curve of their own")
    validate_every: int = Field(100, ge=1, description="steps between two looks at the validation loss")
    validation_pictures: int = Field(64, ge=1, description="of the held-out ones, the same each time")
    validation_bins: int = Field(10, ge=1, le=100, description="timesteps at which they are looked at")
    preview_every: int = Field(500, ge=0, description="steps between two sets of sample pictures; 0: none")
    preview_prompts: list[str] = Field(default=[], description="what is drawn, with seed 0, 1, ...")
    preview_steps: int = Field(25, ge=1, le=1000, description="sampling steps of the previews")
    preview_guidance: float = Field(5.0, ge=0, description="classifier-free guidance scale of the previews")
    checkpoint_every: int = Field(
        100, ge=1, description="steps between two resumable states; changes no byte of the result"
    )
    kl_weight: float = Field(1e-6, ge=0, description="of method vae: of the divergence from N(0, 1) beside the error")
    vae_part: Literal["whole", "decoder"] = Field(
        "whole", description="of method vae: decoder leaves latents as they are, so that a trained UNet still fits"
    )
    vocabulary: int = Field(2048, ge=514, le=49408, description="of method clip: tokens; 514 is a token a byte")

    @field_validator("learning_rate")
    @classmethod
    def _rate_fits_optimizer(cls, rate: float, info: ValidationInfo) -> float:
        if info.data.get("optimizer") == "prodigy":
            if rate < 0.1:
                raise ValueError(
                    "prodigy multiplies the rate that it finds by it: give 1.0, or 0.1 to 1 to slow it down"
                )
        elif rate > 0.1:
            raise ValueError("above 0.1 weights are lost in a few steps: 1e-6 to 1e-3 are common")
        return rate

    @field_validator("precision")
    @classmethod
    def _precision_fits_optimizer(cls, precision: str, info: ValidationInfo) -> str:
        if precision == "fp16" and info.data.get("optimizer") == "muon":
            raise ValueError("muon takes precision bf16 or no: two optimizers can't share fp16's scaled gradients")
        return precision

    def verify(self) -> None:
        """Raises StageError if a library that the optimiser needs isn't installed."""
        name = OPTIONAL.get(self.optimizer)
        if name and not find_spec(name.replace("-", "_")):
            raise StageError("train.optimizer", f"is {self.optimizer}: {name} isn't installed", f"pip install {name}")
