"""Each data set of the recipes in its authors' layout, twelve pictures of the sizes that the real one has."""

import csv
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from hashlib import md5
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
from PIL import Image

from stages.collect.ffhq import LIST
from tests.collect.reading import plant
from tests.collect.test_celeba import NAMES
from tests.collect.test_stanford_dogs import annotation, mat_list
from tests.pictures import drawing, encoded

COUNT = {"thing": 6}  # pictures of a source; else 12
HELD_OUT = 3  # of 12, where a set has its own test pictures
NUMBERS = range(12)
SPLIT_BY_THEIR_AUTHORS = ("cub200", "stanford_dogs", "ffhq", "celeba", "fashion_gen")


def textured(number: int, size: tuple[int, int]) -> Image.Image:
    """A drawing with the fine detail that photographs have: flat colours count as blurred."""
    grain = np.random.default_rng(number).normal(0, 15, (size[1] // 4 + 1, size[0] // 4 + 1, 1))
    large = np.kron(grain, np.ones((4, 4, 1)))[: size[1], : size[0]]
    return Image.fromarray((np.asarray(drawing(number, size)) + large).clip(0, 255).astype(np.uint8))


def photograph(number: int, size: tuple[int, int]) -> bytes:
    return encoded(textured(number, size), "JPEG", quality=90)


def own(root: Path, size: tuple[int, int] = (1100, 1024)) -> None:
    """A person's photographs, each with its sidecar."""
    files: dict[str, bytes | str] = {f"{number}.jpg": photograph(number, size) for number in NUMBERS}
    plant(root, files | {f"{number}.txt": f"a drawing with the number {number}" for number in NUMBERS})


def thing(root: Path) -> None:
    """Photographs of one thing, without words."""
    plant(root, {f"{number}.jpg": photograph(number, (640, 512)) for number in range(COUNT["thing"])})


def birds(root: Path) -> None:
    names = [f"{1 + number % 2:03d}.Bird_{number % 2}/b_{number}" for number in NUMBERS]
    held_out = {number: int(number >= HELD_OUT) for number in NUMBERS}
    lists = {
        "images": [f"{name}.jpg" for name in names],
        "image_class_labels": [str(1 + number % 2) for number in NUMBERS],
        "train_test_split": [str(held_out[number]) for number in NUMBERS],
        "bounding_boxes": ["60.0 40.0 300.0 250.0"] * len(NUMBERS),
    }
    told: dict[str, bytes | str] = {
        f"{name}.txt": "".join(f"{number} {line}\n" for number, line in enumerate(lines, 1))
        for name, lines in lists.items()
    }
    told["classes.txt"] = "1 001.Bird_0\n2 002.Bird_1\n"
    told |= {f"images/{name}.jpg": photograph(number, (500, 375)) for number, name in enumerate(names)}
    plant(root / "CUB_200_2011", told)
    plant(
        root / "text_c10",
        {f"{name}.txt": f"this bird has {number} red feathers\n" * 2 for number, name in enumerate(names)},
    )


def dogs(root: Path) -> None:
    names = [f"n0208562{number % 2}-Dog_{number % 2}/n_{number}" for number in NUMBERS]
    plant(root / "Images", {f"{name}.jpg": photograph(number, (500, 375)) for number, name in enumerate(names)})
    plant(root / "Annotation", {name: annotation(1) for name in names})
    mat_list(root / "test_list.mat", [f"{name}.jpg" for name in names[:HELD_OUT]])
    mat_list(root / "train_list.mat", [f"{name}.jpg" for name in names[HELD_OUT:]])


def ffhq(root: Path) -> None:
    entries = {}
    for number in NUMBERS:
        path, data = (
            f"images1024x1024/00000/{number:05d}.png",
            encoded(textured(number, (1024, 1024)), compress_level=1),
        )
        plant(root, {path: data})
        entries[str(number)] = {
            "category": "validation" if number < HELD_OUT else "training",
            "metadata": {"photo_url": "https://www.flickr.com/x", "author": "Ann", "license": "Public Domain Mark"},
            "image": {"file_path": path, "file_md5": md5(data, usedforsecurity=False).hexdigest()},
        }
    plant(root, {LIST: json.dumps(entries)})


def celeba(root: Path) -> None:
    names = [f"{number:06d}.jpg" for number in NUMBERS]
    plant(root / "img_align_celeba", {name: photograph(n, (178, 218)) for n, name in enumerate(names)})
    rows = [
        " ".join([name, *(" 1" if (number + place) % 5 == 0 else "-1" for place in range(len(NAMES)))])
        for number, name in enumerate(names)
    ]
    plant(
        root,
        {
            "list_attr_celeba.txt": "\n".join([str(len(NUMBERS)), " ".join(NAMES), *rows]) + "\n",
            "identity_CelebA.txt": "".join(f"{name} {number}\n" for number, name in enumerate(names)),
            "list_eval_partition.txt": "".join(f"{name} {int(n < HELD_OUT)}\n" for n, name in enumerate(names)),
        },
    )


def fashion_gen(root: Path) -> None:
    root.mkdir(parents=True)
    for split, numbers in {"train": NUMBERS[HELD_OUT:], "validation": NUMBERS[:HELD_OUT]}.items():
        with h5py.File(root / f"fashiongen_256_256_{split}.h5", "w") as file:
            file["input_image"] = np.stack([np.asarray(textured(number, (256, 256))) for number in numbers])
            file["input_productID"] = np.reshape(list(numbers), (-1, 1))
            texts = {"description": "Long sleeve shirt number {}.", "name": "Shirt {}", "category": "TOPS"}
            for name, text in texts.items():
                told = np.array([text.format(number).encode() for number in numbers], dtype="S100")
                file[f"input_{name}"] = told.reshape(-1, 1)


def figr8(root: Path) -> None:
    names = [f"sign {number % 3}/{number}-200.png" for number in NUMBERS]
    plant(root / "Data", {name: encoded(drawing(n, (192, 192)).convert("L")) for n, name in enumerate(names)})
    with (root / "data.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["category_number", "category_name", "path", "artist", "license"])
        rows.writerows([number % 3, f"sign {number % 3}", name, "Ann", "CC0"] for number, name in enumerate(names))


def icons(root: Path) -> None:
    """An npm package of Iconify's; each set draws the same names in its own way."""
    own = len(root.name)
    shapes = {}
    for number in NUMBERS:
        circle = f'<circle cx="{(own + number) % 16}" cy="8" r="{2 + number % 6}" fill="#{number:x}8{number:x}"/>'
        bar = f'<path fill="#00{number:x}" d="M{number} 0h3v{1 + (own * number) % 15}h-3z"/>'
        shapes[f"shape-{number}"] = {"body": circle + bar}
    plant(
        root,
        {
            "icons.json": json.dumps({"prefix": root.name, "width": 16, "height": 16, "icons": shapes}),
            "info.json": json.dumps({"name": root.name, "author": {"name": "Ann"}, "license": {"title": "MIT"}}),
        },
    )


def links(root: Path, address: str) -> None:
    """A table of LAION's to pictures at this address."""
    rows = [
        {"URL": f"{address}/{n}.jpg", "TEXT": f"a drawing of the number {n} that lies on the table", "similarity": 0.3}
        | {"punsafe": 0.01, "pwatermark": 0.1, "aesthetic": 5.5, "WIDTH": 640, "HEIGHT": 600}
        for n in NUMBERS
    ]
    root.mkdir(parents=True)
    pd.DataFrame(rows).to_parquet(root / "part-00000.parquet")


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class names it so
        """Say nothing."""


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of a web server on this machine that has the folder's files, while the block runs."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=folder)) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


KINDS: dict[str, Callable[[Path], None]] = {
    "cub200": birds,
    "stanford_dogs": dogs,
    "ffhq": ffhq,
    "celeba": celeba,
    "fashion_gen": fashion_gen,
    "figr8": figr8,
    "iconify": icons,
}


@contextmanager
def planted(sources: Path, wanted: list[dict[str, str]]) -> Iterator[None]:
    """The trees that a recipe's `collect.sources` name, while the block runs."""
    with served(sources.parent / "web") as address:
        for source in wanted:
            kind, root = source["kind"], sources / source.get("name", source["kind"])
            if kind == "folder":
                (thing if root.name == "thing" else own)(root)
            elif kind == "urls":
                own(sources.parent / "web", (640, 600))
                links(root, address)
            elif kind != "openmoji":
                KINDS[kind](root)
        yield
