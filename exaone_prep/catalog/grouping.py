"""Splits and groups, from ids alone: nothing of a slide is read, and no slide waits for another."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from fractions import Fraction

TRAIN = "train"
"""The split of every patient that no other split takes."""

_SPACE = 2**64


def split_of(patient_id: str, shares: Mapping[str, float], *, seed: int) -> str:
    """The split of a patient: a keyed hash (BLAKE2b, RFC 7693) of the patient alone, so nobody else can move him.

    The hash, as a fraction of 2**64, falls into one of the intervals that the shares cut off one after the other, in
    the order of the names of the splits.

    Args:
        patient_id: As in the catalog (hashed, where ids are hashed).
        shares: Share of patients per split; what is left is `train`.
        seed: The seed of the manifest.
    """
    drawn = _keyed(patient_id, seed=seed, use="split")
    cumulated = Fraction(0)
    for name in sorted(shares):
        cumulated += Fraction(shares[name])
        if drawn < cumulated * _SPACE:
            return name
    return TRAIN


def assign_groups(splits: Mapping[str, str], *, slides_per_group: int, seed: int) -> dict[str, int]:
    """Cut the slides of each split into groups of equal size, give or take one slide.

    Groups are numbered on from split to split, in the order of their names; slides fall into the groups of their split
    in the order of a keyed hash of their ids.

    Args:
        splits: The split of each slide id; duplicates left out.
        slides_per_group: No group is larger.
        seed: The seed of the manifest.

    Returns:
        The group of each slide id, from 0 without gaps.
    """
    if slides_per_group < 1:
        raise ValueError(f"slides_per_group must be at least 1, not {slides_per_group}")
    groups: dict[str, int] = {}
    first = 0
    for split in sorted(set(splits.values())):
        members = (slide_id for slide_id, its_split in splits.items() if its_split == split)
        ordered = sorted(members, key=lambda slide_id: (_keyed(slide_id, seed=seed, use="group"), slide_id))
        count = -(-len(ordered) // slides_per_group)
        for group in range(count):
            for slide_id in ordered[group * len(ordered) // count : (group + 1) * len(ordered) // count]:
                groups[slide_id] = first + group
        first += count
    return groups


def _keyed(text: str, *, seed: int, use: str) -> int:
    digest = hashlib.blake2b(text.encode(), digest_size=8, key=f"{use}:{seed}".encode()).digest()
    return int.from_bytes(digest, "big")
