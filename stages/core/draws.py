"""Random draws that depend on what they are for, and on nothing else.

A draw is derived from its purpose: seed, a word, a step, a key. No generator is
shared, so it matters neither which worker draws, nor in which order, nor what
was drawn before: a resumed run needs no state to go on with the same numbers.
"""

import hashlib

Part = str | int


def seed_of(*parts: Part) -> int:
    """A seed in [0, 2**63) from the parts, by BLAKE2b (RFC 7693)."""
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def uniform(*parts: Part) -> float:
    """A number in [0, 1), uniform over purposes, with 53 random bits."""
    return (seed_of(*parts) >> 10) / 2**53
