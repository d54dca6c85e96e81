"""Drawing lots: which group goes to which part, balanced by class and source, and nearly the same after data is added.

Weighted rendezvous hashing with bounded loads (Thaler and Ravishankar 1998; Mirrokni, Thorup and Zadimoghaddam 2018):
SHA-256 of (seed, part, group) orders the parts for each group, and a group takes the first part in its order that has
room for its labels. Nothing depends on the order of the rows, and one more group displaces a few others only.
The rarest label is dealt first and as evenly as it can be; then large groups, since they fit in few places.
"""

import hashlib
import math
from collections import Counter
from collections.abc import Mapping

import pandas as pd

Cell = tuple[str, ...]            # (label,), or (label, source)
_HELD_OUT_SHARE = 0.5             # of the held-out part's room for a label: more from one group is no independent test


def group_table(units: pd.DataFrame) -> dict[str, Counter[Cell]]:
    """group_id -> how many units of each label, and of each label from each source (of the unit's first recording).

    Args:
        units: group_id, unit_id, label, source; one row a recording.
    """
    first = units.sort_values(["unit_id", "recording_id"]).drop_duplicates("unit_id")
    table: dict[str, Counter[Cell]] = {group: Counter() for group in sorted(first["group_id"])}
    for group, label, source in zip(first["group_id"], first["label"], first["source"], strict=True):
        table[group].update([(label,), (label, str(source))])
    return table


def draw(
    groups: Mapping[str, Counter[Cell]], shares: Mapping[str, float], seed: int, held_out: str | None = None
) -> dict[str, str]:
    """group -> part.

    Args:
        groups: of `group_table`.
        shares: part -> its share of the units; they add up to 1.
        seed: another seed is another draw.
        held_out: the part that no single group may fill by more than half (of any one label).
    """
    totals = sum(groups.values(), Counter())
    spread = Counter(cell for counts in groups.values() for cell in counts)      # in how many groups a label occurs
    loads: dict[str, Counter[Cell]] = {part: Counter() for part in shares}
    placed: dict[str, str] = {}

    def cells_of(group: str) -> list[Cell]:
        """Labels before labels with source; the rarest first."""
        return sorted(groups[group], key=lambda cell: (len(cell), spread[cell], cell))

    def order(group: str) -> tuple[object, ...]:
        rarest = cells_of(group)[0]
        return spread[rarest], rarest, -groups[group][rarest], _lot(seed, "", group, 1.0)

    def crowding(group: str, part: str) -> tuple[object, ...]:
        """How badly a part has room for a group: compared label by label, chance last."""
        counts, room = groups[group], shares[part]
        levels = [_level(loads[part][c], counts[c], totals[c] * room, part == held_out) for c in cells_of(group)]
        return *levels, _lot(seed, part, group, room), part

    for group in sorted(groups, key=order):
        placed[group] = min(shares, key=lambda part: crowding(group, part))
        loads[placed[group]].update(groups[group])
    return placed


def _level(load: int, units: int, target: float, held_out: bool) -> float:
    """0: fits below the target; 1: into its last, rounded-up place; above 1: by how many units it is over."""
    if held_out and units > max(1.0, _HELD_OUT_SHARE * target):
        return float("inf")
    if load + units <= math.floor(target):
        return 0.0
    return 1.0 + max(0, load + units - math.ceil(target))


def _lot(seed: int, part: str, group: str, weight: float) -> float:
    """An exponential variate of rate `weight`: how often a part's is the smallest is what its weight says."""
    digest = hashlib.sha256(f"{seed}\n{part}\n{group}".encode()).digest()
    return -math.log((int.from_bytes(digest[:6], "big") + 1) / 2**48) / weight
