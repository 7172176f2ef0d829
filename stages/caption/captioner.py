"""An image-to-text model of transformers, asked for one caption a picture."""

import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from stages.caption.params import CaptionParams
from stages.core.errors import StageError


class Captioner:
    """The model of params at `name` (a folder, or an id at `revision`), from safetensors only.

    Greedy decoding: the same picture gives the same caption. Raises StageError if it can't be opened.
    """

    def __init__(self, params: CaptionParams, name: str, revision: str | None) -> None:
        self._params = params
        try:
            self._processor = AutoProcessor.from_pretrained(name, revision=revision)
            self._model = AutoModelForImageTextToText.from_pretrained(
                name, revision=revision, use_safetensors=True, torch_dtype=torch.float32
            ).eval()
        except (OSError, ValueError) as error:
            said = (str(error).splitlines() or [type(error).__name__])[0]
            raise StageError("caption.model", f"{params.model} can't be opened ({said})", "see the guide") from None
        self._model.to("cuda" if torch.cuda.is_available() else "cpu")

    @torch.no_grad()
    def describe(self, pictures: list[Image.Image]) -> list[str]:
        """One caption a picture, the prompt in front where the model repeats it; may be empty."""
        asked = {"text": [self._params.prompt] * len(pictures)} if self._params.prompt else {}
        inputs = self._processor(images=pictures, return_tensors="pt", **asked).to(self._model.device)
        tokens = self._model.generate(**inputs, max_new_tokens=self._params.max_tokens, do_sample=False, num_beams=1)
        return [" ".join(text.split()) for text in self._processor.batch_decode(tokens, skip_special_tokens=True)]
