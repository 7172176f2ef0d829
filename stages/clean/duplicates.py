"""Near-duplicates: every pair of hashes within a Hamming radius, found exactly; then who stays.

Lay the 64 bits on the points of an affine space of n dimensions over the field of q elements. A set of points that
meets every hyperplane has at least n (q - 1) + 1 of them (Jamison, Covering finite fields with cosets of subspaces,
J. Comb. Theory A 22, 1977). So if two hashes differ in at most n (q - 1) bits, they agree on all bits of some
hyperplane, a q-th of the bits: sort by the bits of each hyperplane, compare only hashes that are equal there, and
nothing is missed. At radius 6 that is 39 sorts by 21 bits; blocks of bits (Manku et al., Detecting near-duplicates for
web crawling, WWW 2007) need 84.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from operator import mul

import numpy as np
from numpy.typing import NDArray

from stages.core.engine import map_shards

Hashes = NDArray[np.uint64]
Indices = NDArray[np.int64]
MIX = np.uint64(0x9E3779B97F4A7C15)  # 2^64 over the golden ratio: its multiples differ in their high bits (Knuth 6.4)
AGREEMENT = 24  # bits at least that stand for what has to agree
CROWDED = 1 << 24  # hashes from which on two that agree on 21 bits do so by chance: then 32 have to agree
PART = 1 << 15  # words at once: they stay in a core's cache
AT_ONCE = 1 << 22  # pairs of pictures whose second hash is compared
FEW = 1 << 20  # hashes for which processes aren't worth their start
MASKS = 5  # that one task searches


def pairs_within(hashes: Hashes, radius: int) -> tuple[Indices, Indices, Indices]:
    """All pairs i < j of `hashes` (N,) whose Hamming distance is at most `radius`: i, j, distance.

    Sorted by (i, j). Give distinct hashes: n equal ones are n (n - 1) / 2 pairs. Hyperplanes are searched by several
    processes or machines, where there are many hashes. Raises ValueError above 2^32 of them.
    """
    count = len(hashes)
    if count >= 1 << 32:
        raise ValueError("pairs_within: takes fewer than 2^32 hashes")
    masks = hyperplanes(radius, 2 if count > CROWDED and radius <= 6 else 3)
    if count <= FEW:
        pairs = pairs_on(hashes, radius, masks)
    else:
        pairs = np.empty(0, dtype=np.uint64)
        tasks = [masks[start : start + MASKS] for start in range(0, len(masks), MASKS)]
        for found in map_shards(partial(pairs_on, hashes, radius), tasks, "look-alikes"):
            pairs = np.union1d(pairs, found)
    one, other = (pairs >> np.uint64(32)).astype(np.int64), (pairs & np.uint64(0xFFFFFFFF)).astype(np.int64)
    return one, other, np.bitwise_count(hashes[one] ^ hashes[other]).astype(np.int64)


def pairs_on(hashes: Hashes, radius: int, masks: Sequence[np.uint64]) -> Hashes:
    """Pairs within `radius` that agree on the bits of a mask, each once, as i << 32 | j; memory: 24 bytes a hash."""
    # One word a hash, so that one sort brings together those that agree: 24 bits or more mixed from what has to
    # agree, a sketch of the whole hash, its number. The sketch spares most comparisons a look at the hashes.
    count = len(hashes)
    agreement_bits, sketch_bits, number_bits = word_bits(count)
    shift = np.uint64(64 - agreement_bits)
    beyond = np.uint64(1) << shift
    number, compared = np.uint64((1 << number_bits) - 1), ~np.uint64((1 << number_bits) - 1)
    low = _folded(hashes, sketch_bits) << np.uint64(number_bits) | np.arange(count, dtype=np.uint64)
    words, found = np.empty_like(hashes), [np.empty(0, dtype=np.uint64)]
    for mask in masks:
        for part in (slice(start, start + PART) for start in range(0, count, PART)):
            words[part] = ((hashes[part] & mask) * MIX >> shift << shift) | low[part]
        words.sort()
        for start in range(0, count - 1, PART):
            stop, step = min(start + PART, count - 1), 1
            differing = words[start:stop] ^ words[start + 1 : stop + 1]
            starts = np.arange(start, stop)
            # They lie in runs: compare with the next, the one after, ... until no run is that long.
            while len(starts):
                likely = starts[np.bitwise_count(differing & compared) <= radius]
                left, right = words[likely] & number, words[likely + step] & number
                near = np.bitwise_count(hashes[left] ^ hashes[right]) <= radius
                left, right = left[near], right[near]
                found.append(np.minimum(left, right) << np.uint64(32) | np.maximum(left, right))
                step += 1
                starts = starts[differing < beyond]
                if stop + step > count:
                    starts = starts[starts + step < count]
                differing = words.take(starts) ^ words[step:].take(starts)
    return np.unique(np.concatenate(found))


def word_bits(count: int) -> tuple[int, int, int]:
    """How the 64 bits of a word are shared among agreement, sketch and number; each has one at least below 2^32."""
    number = count.bit_length()
    agreement = min(max(AGREEMENT, number + 2), 63 - number)
    return agreement, 64 - agreement - number, number


def _folded(hashes: Hashes, bits: int) -> Hashes:
    """`bits` bits a hash, folded by exclusive or: two sketches never differ in more bits than their hashes."""
    folded = np.zeros_like(hashes)
    for start in range(0, 64, bits):
        folded ^= hashes >> np.uint64(start)
    return folded & np.uint64((1 << bits) - 1)


@dataclass(frozen=True)
class Found:
    """of: duplicate's index -> (keeper's index, phash distance). pairs: all pairs of look-alikes, (P, 2) indices."""

    of: dict[int, tuple[int, int]]
    pairs: Indices


def choose_keepers(
    phash: Hashes, dhash: Hashes, radius: int, confirm_radius: int, mirrored: tuple[Hashes, Hashes] | None = None
) -> Found:
    """Which pictures are duplicates of a better one.

    Pictures come best first. A picture is a duplicate if it is within reach of
    one that stays, never merely of another duplicate: no chain leads from a
    picture to one that doesn't resemble it. Of several keepers the nearest counts.
    mirrored: phash and dhash of the mirrored pictures; with them mirrored copies are within reach too.
    """
    count = len(phash)
    twin = _first_equal(phash, dhash)  # of each picture the first that has its very hashes
    distinct = np.flatnonzero(twin == np.arange(count))
    hashes = [(phash[distinct], dhash[distinct])]
    if mirrored:
        hashes.append((mirrored[0][distinct], mirrored[1][distinct]))
    ends = np.concatenate([distinct] * len(hashes))
    stacked = [np.concatenate(parts) for parts in zip(*hashes, strict=True)]
    left, right, distance = _confirmed(stacked[0], stacked[1], radius, confirm_radius)
    better, worse = np.minimum(ends[left], ends[right]), np.maximum(ends[left], ends[right])
    order = np.lexsort((better, distance, worse))  # a picture's pairs side by side, the nearest first
    better, worse, distance = (array[order][(better != worse)[order]] for array in (better, worse, distance))
    duplicates: dict[int, tuple[int, int]] = {}
    keeper_of = np.full(count, -1)
    for one, other, apart in zip(worse.tolist(), better.tolist(), distance.tolist(), strict=True):
        if keeper_of[one] < 0 and keeper_of[other] < 0:
            keeper_of[one] = other
            duplicates[one] = (other, apart)
    twins = np.flatnonzero(twin != np.arange(count))
    for index, first in zip(twins.tolist(), twin[twins].tolist(), strict=True):
        duplicates[index] = duplicates.get(first, (first, 0))  # of a duplicate's twin the keeper is the duplicate's
    pairs = [np.stack([twins, twin[twins]], axis=1), np.stack([worse, better], axis=1)]
    return Found(duplicates, np.concatenate(pairs))


def _first_equal(phash: Hashes, dhash: Hashes) -> Indices:
    """Of each place the first one with the same two hashes, (N,)."""
    order = np.lexsort((dhash, phash))  # stable: equal ones keep their order
    begins = np.ones(len(order), dtype=bool)
    begins[1:] = (np.diff(phash[order]) != 0) | (np.diff(dhash[order]) != 0)
    first = np.empty(len(order), dtype=np.int64)
    first[order] = order[begins][np.cumsum(begins) - 1]
    return first


def _confirmed(phash: Hashes, dhash: Hashes, radius: int, confirm_radius: int) -> tuple[Indices, Indices, Indices]:
    """Pairs of pictures within `radius` by phash and `confirm_radius` by dhash: one, other, distance of phash.

    Pictures with one phash are compared as a group: with each other, and with those of every group within the radius.
    """
    distinct, starts, sizes = np.unique(np.sort(phash), return_index=True, return_counts=True)
    members = np.argsort(phash, kind="stable")
    left, right, apart = pairs_within(distinct, radius)
    crowds = np.flatnonzero(sizes > 1)
    left, right = np.concatenate([crowds, left]), np.concatenate([crowds, right])
    apart = np.concatenate([np.zeros(len(crowds), dtype=np.int64), apart])
    ends = np.cumsum(sizes[left] * sizes[right])
    found = []
    for start in range(0, int(ends[-1]) if len(ends) else 0, AT_ONCE):
        number = np.arange(start, min(start + AT_ONCE, int(ends[-1])))
        pair = np.searchsorted(ends, number, side="right")
        number -= (ends - sizes[left] * sizes[right])[pair]
        one = members[starts[left][pair] + number // sizes[right][pair]]
        other = members[starts[right][pair] + number % sizes[right][pair]]
        near = np.bitwise_count(dhash[one] ^ dhash[other]) <= confirm_radius
        near &= (left[pair] != right[pair]) | (one < other)
        found.append(np.stack([one[near], other[near], apart[pair][near]]))
    one, other, distance = np.concatenate([np.empty((3, 0), dtype=np.int64), *found], axis=1)
    return one, other, distance


def hyperplanes(radius: int, order: int) -> list[np.uint64]:
    """Masks of 64 bits, a third of them (order 3) or half (order 2): any `radius` bits leave one mask untouched.

    The least affine space over the field of `order` elements for which Jamison's bound holds: radius 6 takes 27
    points and 39 masks of order 3, or 64 points and 126 masks of order 2.
    """
    dimensions = max(1, -(-radius // (order - 1)))
    points = list(product(range(order), repeat=dimensions))
    places = [points[bit * len(points) // 64] for bit in range(64)]
    directions = [normal for normal in points if next((step for step in normal if step), 0) == 1]
    sides = [[sum(map(mul, normal, place)) % order for place in places] for normal in directions]
    return [np.uint64(sum(1 << bit for bit in range(64) if side[bit] == c)) for side in sides for c in range(order)]
