"""What a reader finds, and how it becomes a pair: captions from templates, licences, columns."""

import fnmatch
import hashlib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from stages.collect.params import Source
from stages.core.errors import StageError
from stages.core.pairs import Failure, Pair

FIELD = re.compile(r"\{(\w+)\}")

USES: dict[str, Callable[[list[str]], list[str]]] = {
    "all": lambda captions: captions,
    "first": lambda captions: captions[:1],
    "shortest": lambda captions: sorted(captions, key=len)[:1],
    "longest": lambda captions: sorted(captions, key=len, reverse=True)[:1],
}


@dataclass(frozen=True)
class Found:
    """A picture as it lies in its source.

    path: its name there, as a person would look for it. captions: the source's own, may be empty.
    extra: all else that the source says of it (JSON values); captions can name it, as {class}.
    The others: see `stages.core.pairs.Pair`.
    """

    data: bytes
    path: str
    captions: list[str]
    extra: dict[str, Any] = field(default_factory=dict)
    url: str | None = None
    license: str | None = None
    attribution: str | None = None
    group: str | None = None
    split: str | None = None
    repeats: int = 1


@dataclass
class Finisher:
    """Applies what params say of one source to what its reader finds. fallbacks: how many captions they gave."""

    source: Source
    fallbacks: int = 0
    _filled: set[str] = field(default_factory=set)
    _fields: set[str] = field(default_factory=set)

    def finish(self, found: Found) -> Pair | Failure:
        """The pair; a failure `empty_file` or `license_not_allowed`."""
        source, terms = self.source, found.license or self.source.license
        if not found.data:
            return Failure(source.name, found.path, "empty_file")
        if source.licenses and not _allowed(terms, source.licenses):
            return Failure(source.name, found.path, "license_not_allowed", terms or "it has none")
        carried = found.extra if source.columns is None else {c: found.extra.get(c) for c in source.columns}
        return Pair(
            key=hashlib.sha256(found.data).hexdigest(),
            data=found.data,
            path=found.path,
            captions=self._captions(found),
            source=source.name,
            role=source.role,
            repeats=source.repeats * found.repeats,
            url=found.url,
            license=terms,
            attribution=found.attribution or source.attribution,
            group=found.group,
            split=found.split,
            extra=json.dumps(carried, sort_keys=True, default=str),
        )

    def _captions(self, found: Found) -> list[str]:
        """The source's own captions through the templates; the fallback where there are none."""
        own = USES[self.source.use]([caption.strip() for caption in found.captions if caption.strip()])
        fields = {name: text for name, value in found.extra.items() if (text := _text(value))}
        self._fields |= set(fields)
        rounds = [{**fields, "caption": caption} for caption in own]
        of_captions = [t for t in self.source.captions if "caption" in FIELD.findall(t)]
        of_fields = [t for t in self.source.captions if t not in of_captions]
        captions = [self._fill(template, values) for values in rounds for template in of_captions]
        captions += [self._fill(template, fields) for template in of_fields]
        if not any(captions) and self.source.fallback:
            captions = [self._fill(self.source.fallback, fields)]
            self.fallbacks += any(captions)
        trigger = f"{self.source.trigger}, " if self.source.trigger else ""
        return list(dict.fromkeys(f"{trigger}{caption}" for caption in captions if caption))

    def _fill(self, template: str, values: dict[str, str]) -> str:
        """The template with its fields filled in; empty if the picture lacks one. Values are never templates."""
        if any(name not in values for name in FIELD.findall(template)):
            return ""
        self._filled.add(template)
        return FIELD.sub(lambda match: values[match[1]], template)

    def refuse_unfillable(self) -> None:
        """A template with a field that no picture has is a slip of the pen. Raises StageError."""
        for template in (*self.source.captions, self.source.fallback):
            unknown = [name for name in FIELD.findall(template) if name != "caption" and name not in self._fields]
            if unknown and template not in self._filled:
                raise StageError(
                    f"collect.sources, {self.source.name}",
                    f"no picture has the field {unknown[0]} of the caption {template!r}",
                    f"use {', '.join(sorted(self._fields | {'caption'}))}",
                )


def _text(value: Any) -> str:
    return value.strip() if isinstance(value, str) else "" if value is None or value != value else str(value)


def _allowed(terms: str | None, patterns: Sequence[str]) -> bool:
    return terms is not None and any(fnmatch.fnmatchcase(terms.lower(), pattern.lower()) for pattern in patterns)
