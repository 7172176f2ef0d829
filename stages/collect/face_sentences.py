"""CelebA's attributes of a face (Liu et al. 2015) as one English sentence.

`Attractive` is the annotators' opinion and never said. What contradicts itself, such as a bald head with wavy hair
or a goatee without a beard, is not said either.
"""

from collections.abc import Callable, Collection, Sequence

COLOURS = {"Black_Hair": "black", "Blond_Hair": "blond", "Brown_Hair": "brown", "Gray_Hair": "gray"}
TEXTURES = {"Straight_Hair": "straight", "Wavy_Hair": "wavy"}
BROWS = {"Arched_Eyebrows": "arched", "Bushy_Eyebrows": "bushy"}
NOSES = {"Big_Nose": "big", "Pointy_Nose": "pointy"}
TRAITS = {
    "Pale_Skin": "pale skin",
    "Oval_Face": "an oval face",
    "High_Cheekbones": "high cheekbones",
    "Rosy_Cheeks": "rosy cheeks",
    "Double_Chin": "a double chin",
    "Narrow_Eyes": "narrow eyes",
    "Bags_Under_Eyes": "bags under the eyes",
    "Big_Lips": "big lips",
}
WORN = {
    "Eyeglasses": "eyeglasses",
    "Wearing_Hat": "a hat",
    "Wearing_Earrings": "earrings",
    "Wearing_Necklace": "a necklace",
    "Wearing_Necktie": "a necktie",
    "Wearing_Lipstick": "lipstick",
}
KINDS = {"Smiling": "smiling", "Chubby": "chubby", "Young": "young", "Bald": "bald"}


def sentence(attributes: Collection[str]) -> str:
    """What a face shows: a photo of a smiling young woman with wavy brown hair and bangs, wearing earrings.

    attributes: the names of those that it has, as in list_attr_celeba.txt.
    """
    has = attributes.__contains__
    person = " ".join([*_said(KINDS, has), "man" if has("Male") else "woman"])
    blurry = "blurry " if has("Blurry") else ""
    shown = [*_hair(has), *_beard(has), *_brows_and_nose(has), *_said(TRAITS, has)]
    shown += ["a slightly open mouth"] if has("Mouth_Slightly_Open") else []
    shown += ["heavy makeup"] if has("Heavy_Makeup") else []
    worn = _said(WORN, has)
    features = f" with {listed(shown)}" if shown else ""
    clothes = f"{',' if shown else ''} wearing {listed(worn)}" if worn else ""
    return f"a {blurry}photo of a {person}{features}{clothes}"


def _said(words: dict[str, str], has: Callable[[str], bool]) -> list[str]:
    return [word for name, word in words.items() if has(name)]


def _hair(has: Callable[[str], bool]) -> list[str]:
    if has("Bald"):
        return []
    textures, colours = _said(TEXTURES, has), _said(COLOURS, has)
    words = [*(textures if len(textures) == 1 else []), *([listed(colours)] if colours else [])]
    more = {"Bangs": "bangs", "Receding_Hairline": "a receding hairline"}
    return [*([f"{' '.join(words)} hair"] if words else []), *_said(more, has)]


def _beard(has: Callable[[str], bool]) -> list[str]:
    """Of men alone: where a woman has one of these, it is a slip. Whoever lacks `No_Beard` has one of some kind."""
    if not has("Male"):
        return []
    beards = {"Goatee": "a goatee", "5_o_Clock_Shadow": "a five o'clock shadow"}
    shown = [] if has("No_Beard") else _said(beards, has)
    shown += _said({"Mustache": "a mustache", "Sideburns": "sideburns"}, has)
    return shown if shown or has("No_Beard") else ["a beard"]


def _brows_and_nose(has: Callable[[str], bool]) -> list[str]:
    brows, noses = _said(BROWS, has), _said(NOSES, has)
    return [*([f"{', '.join(brows)} eyebrows"] if brows else []), *([f"a {', '.join(noses)} nose"] if noses else [])]


def listed(words: Sequence[str]) -> str:
    """One, two and three."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
