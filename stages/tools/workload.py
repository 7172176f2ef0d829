"""The work of one run: what each picture asks for in training and in encoding, on the configuration of params."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from diffusers import ControlNetModel
from peft import LoraConfig
from peft.tuners.lora import LoraModel

from stages.core.errors import StageError
from stages.core.families.family import T5, T5_TOKENS, Encoder, Text
from stages.tools.blueprints import Blueprint
from stages.tools.counting import Count, bytes_held, count_forward, count_step, enter, without_data
from stages.train.controlnet import PIPELINES
from stages.train.lora import TEXT_TARGETS
from stages.train.optimizers import split_matrices, weights_of
from stages.train.params import TrainParams

BLOCKS = ("ResnetBlock2D", "BasicTransformerBlock", "JointTransformerBlock")  # what checkpointing works out again
PRIORS = ("full", "dreambooth", "lora")  # methods with class pictures


@dataclass(frozen=True)
class Workload:
    """step: of training, a picture, with its class picture where there is one. weights: that learn. matrices: of
    them, those that muon moves. frozen: weights that are read only. denoise, encode, decode, read: FLOPs of one call
    of the denoiser, of the VAE in and out, of the text encoders. parts: weights of the model's parts."""

    step: Count
    weights: int
    matrices: int
    frozen: int
    denoise: int
    encode: int
    decode: int
    read: int
    parts: Mapping[str, int]


def measure(plan: Blueprint, params: TrainParams, side: int) -> Workload:
    """Counted on the real configuration at `side` x `side` px, on tensors without data. Raises StageError."""
    if side % plan.factor:
        raise StageError("preprocess.resolution", f"is {side}", f"make it a multiple of {plan.factor}")
    with torch.device("meta"):
        parts = {plan.family.denoiser: plan.make_denoiser(), "vae": plan.make_vae()}
        parts |= {name: plan.make_encoder(name) for name in plan.encoders}
        for part in parts.values():
            part.requires_grad_(False)
        sizes = {name: sum(weight.numel() for weight in part.parameters()) for name, part in parts.items()}
        step = Step(plan, params, parts, side)
        losses, learned, used = step.training()
    vae, picture = parts["vae"], (3, side, side)
    with without_data():
        for module in {id(module): module for module in (*parts.values(), *learned, *used)}.values():
            enter(module)
        denoise = count_forward(lambda: step.denoise(1))
        read = count_forward(lambda: step.read(1).embeddings)
        encode = count_forward(lambda: vae.encode(torch.empty(1, *picture)).latent_dist.mean)
        decode = count_forward(lambda: vae.decode(step.latents(1)).sample)
        count = count_step(losses, used, params.precision)
        if params.gradient_checkpointing:
            count = replace(count, kept=count.kept + step.largest_block())
    own = {id(weight): weight for module in learned for weight in weights_of(module)}
    moved = {id(weight): weight for module in learned for weight in split_matrices(module)[0]}
    every = {id(weight): weight for module in used for weight in module.parameters()}
    return Workload(
        count,
        sum(weight.numel() for weight in own.values()),
        sum(weight.numel() for weight in moved.values()),
        sum(weight.numel() for name, weight in every.items() if name not in own),
        denoise,
        encode,
        decode,
        read,
        sizes,
    )


class Step:
    """A step of training by params.method. Lives inside `without_data`."""

    def __init__(self, plan: Blueprint, params: TrainParams, parts: dict[str, Any], side: int) -> None:
        self.plan, self.params, self.parts, self.side = plan, params, parts, side
        self.denoiser = parts[plan.family.denoiser]

    def latents(self, count: int) -> torch.Tensor:
        small = self.side // self.plan.factor
        return torch.empty(count, self.plan.vae.get("latent_channels", 4), small, small)

    def text(self, count: int) -> Text:
        """As stored by encode."""
        width, pooled = self.plan.family.text_shape(self.denoiser)
        embeddings = torch.empty(count, self.plan.text_length, width)
        return Text(embeddings, torch.empty(count, pooled) if pooled else None)

    def read(self, count: int) -> Text:
        """By the text encoders at work."""
        encoders = [Encoder(name, None, self.parts[name]) for name in self.plan.encoders]
        lengths = [
            T5_TOKENS if name == T5 else config.get("max_position_embeddings", 77)
            for name, config in self.plan.encoders.items()
        ]
        tokens = [torch.zeros(count, length, dtype=torch.int64) for length in lengths]
        return self.plan.family.embed(encoders, tokens)

    def denoise(self, count: int, text: Text | None = None, **further: Any) -> torch.Tensor:
        noised, times = self.latents(count), torch.ones(count)
        text, frames = text or self.text(count), torch.empty(count, 6)
        return self.plan.family.answer(self.denoiser, noised, times, text, frames, **further)

    def training(self) -> tuple[Callable[[int], torch.Tensor], list[Any], list[Any]]:
        """The losses, the modules that learn, and all that are used. Raises StageError."""
        params, denoiser = self.params, self.denoiser
        encoders = [self.parts[name] for name in self.plan.encoders]
        learned: list[Any] = [denoiser]
        used: list[Any] = [denoiser]
        live = params.text_encoder.learns and params.method != "controlnet"
        learning = [self.parts[name] for name in self.plan.encoders if name != T5] if live else []
        losses: Callable[[int], torch.Tensor] = self.denoise
        match params.method:
            case "full" | "dreambooth":
                learned = [denoiser.requires_grad_(True), *(encoder.requires_grad_(True) for encoder in learning)]
            case "lora":
                learned = [self._adapted(denoiser, params.lora.targets or list(self.plan.family.targets))]
                learned += [self._adapted(encoder, list(TEXT_TARGETS)) for encoder in learning]
            case "textual_inversion":
                learned, live = self._words(), True
            case "controlnet":
                if self.plan.family.pipeline.__name__ not in PIPELINES:
                    raise StageError("train.method", f"controlnet doesn't know {self.plan.family.name}", "use SD or XL")
                copy = ControlNetModel.from_unet(denoiser).requires_grad_(True)
                learned, used, losses = [copy], [denoiser, copy], lambda count: self._controlled(copy, count)
            case "vae":
                return self._autoencoder()
            case _:
                raise StageError("train.method", f"{params.method} is not counted", "it takes minutes: try it")
        if live:
            used = [denoiser, *encoders]
            losses = lambda count: self.denoise(count, self.read(count))  # noqa: E731 - one of several
        self._checkpoint(learned, params.gradient_checkpointing)
        if params.prior.prompt and params.method in PRIORS:  # each picture with one of its class
            single = losses
            losses = lambda count: single(count) + single(count)  # noqa: E731 - one of several
        return losses, learned, used

    def _adapted(self, network: Any, targets: list[str]) -> Any:
        lora = self.params.lora
        config = LoraConfig(r=lora.rank, lora_alpha=lora.alpha, target_modules=targets, use_dora=lora.dora)
        return LoraModel(network, {"default": config}, "default").model

    def _words(self) -> list[Any]:
        """Vectors of the words, in each CLIP text encoder; what follows them takes part in the backward pass."""
        vectors, tables = sum(word.vectors for word in self.params.words) or 1, []
        for name in self.plan.encoders:
            if name != T5:
                table = self.parts[name].get_input_embeddings()
                table.register_forward_hook(lambda _module, _inputs, answer: answer.requires_grad_(True))
                tables.append(torch.nn.Embedding(vectors, table.weight.shape[1]))
        return tables

    def _controlled(self, copy: Any, count: int) -> torch.Tensor:
        text, frames = self.text(count), torch.empty(count, 6)
        sized = {"text_embeds": text.pooled, "time_ids": frames} if self.plan.family.sized else None
        down, middle = copy(
            self.latents(count),
            torch.ones(count),
            encoder_hidden_states=text.embeddings,
            controlnet_cond=torch.empty(count, 3, self.side, self.side),
            added_cond_kwargs=sized,
            return_dict=False,
        )
        return self.denoise(count, text, down_block_additional_residuals=down, mid_block_additional_residual=middle)

    def _autoencoder(self) -> tuple[Callable[[int], torch.Tensor], list[Any], list[Any]]:
        vae = self.parts["vae"]
        whole = self.params.vae_part == "whole"
        learned = vae if whole else torch.nn.ModuleList([vae.decoder, vae.post_quant_conv])
        learned.requires_grad_(True)
        self._checkpoint([vae], self.params.gradient_checkpointing)

        def losses(count: int) -> torch.Tensor:
            latents = vae.encode(torch.empty(count, 3, self.side, self.side)).latent_dist.mean
            answer: torch.Tensor = vae.decode(latents).sample
            return answer

        return losses, [learned], [vae]

    def _checkpoint(self, modules: list[Any], on: bool) -> None:
        for module in modules:
            if hasattr(module, "enable_gradient_checkpointing"):
                (module.enable_gradient_checkpointing if on else module.disable_gradient_checkpointing)()
            elif on and hasattr(module, "gradient_checkpointing_enable"):
                module.gradient_checkpointing_enable()
            module.train()

    def largest_block(self) -> int:
        """Bytes a picture that the largest of the blocks holds while it is worked out again."""
        calls: dict[Any, Any] = {}

        def note(block: Any, args: Any, kwargs: Any) -> None:
            shapes = [tuple(value.shape) for value in (*args, *kwargs.values()) if isinstance(value, torch.Tensor)]
            calls[type(block), *shapes] = block, args, kwargs

        blocks = [block for block in self.denoiser.modules() if type(block).__name__ in BLOCKS]
        hooks = [block.register_forward_pre_hook(note, with_kwargs=True) for block in blocks]
        with torch.no_grad():
            self.denoise(1)
        for hook in hooks:
            hook.remove()
        return max((self._block_bytes(*call) for call in calls.values()), default=0)

    def _block_bytes(self, block: Any, args: Any, kwargs: Any) -> int:
        def losses(_count: int) -> torch.Tensor:
            answer = block(*args, **kwargs)
            parts = answer if isinstance(answer, tuple) else (answer,)
            return sum((part.float().sum() for part in parts if part is not None), torch.zeros(()))

        return bytes_held(losses, 1, [block], self.params.precision)
