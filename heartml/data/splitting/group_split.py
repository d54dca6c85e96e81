"""Which group goes to which part: drawn at random, balanced by label and source, stable when data are added.

The method is weighted rendezvous hashing with bounded loads (Thaler and Ravishankar 1998; Mirrokni, Thorup and
Zadimoghaddam 2018). SHA-256 of (seed, part, group) orders the parts for each group. A group takes the first part in
its order that has room for its labels. The order of the rows has no influence, and a new group moves few others.
Groups with the rarest label are placed first, so that it is spread evenly. Large groups come before small ones, since
they fit into fewer places.

Of a label that few groups have, groups are spread before units. By units alone, four large groups of it would fill the
folds, and all its small groups would be held out.
"""

import hashlib
import math
from collections import Counter
from collections.abc import Mapping

import pandas as pd

Cell = tuple[str, ...]            # (label,), or (label, source)
_HELD_OUT_SHARE = 0.5             # most of a label's held-out units that one group may give, or the test is its alone
_FEW_GROUPS = 2                   # a label of which some part gets about so many groups, or fewer, is spread by groups
_MOST_GROUPS = 2.0                # of any other label a part gets at most so many times its share of the groups


def group_table(units: pd.DataFrame) -> dict[str, Counter[Cell]]:
    """For each group the number of units with each label, and with each label from each source.

    Args:
        units: group_id, unit_id, recording_id, label, source; one row a recording. A unit has the source of its first
            recording.

    Returns:
        group_id -> counts with the keys (label,) and (label, source).

    >>> rows = [("g1", "child 1", "r1", "Present", "2014"), ("g1", "child 1", "r2", "Present", "2014"),
    ...         ("g1", "child 2", "r3", "Absent", "2015"), ("g2", "child 3", "r4", "Absent", "2014")]
    >>> table = group_table(pd.DataFrame(rows, columns=["group_id", "unit_id", "recording_id", "label", "source"]))
    >>> dict(table["g1"])
    {('Present',): 1, ('Present', '2014'): 1, ('Absent',): 1, ('Absent', '2015'): 1}
    >>> dict(table["g2"])
    {('Absent',): 1, ('Absent', '2014'): 1}
    """
    first = units.sort_values(["unit_id", "recording_id"]).drop_duplicates("unit_id")
    table: dict[str, Counter[Cell]] = {group: Counter() for group in sorted(first["group_id"])}
    for group, label, source in zip(first["group_id"], first["label"], first["source"], strict=True):
        table[group].update([(label,), (label, str(source))])
    return table


def draw(
    groups: Mapping[str, Counter[Cell]], shares: Mapping[str, float], seed: int, held_out: str | None = None
) -> dict[str, str]:
    """Draw a part for each group.

    Args:
        groups: of `group_table`.
        shares: part -> its share of the units; the shares add up to 1.
        seed: another seed gives another draw.
        held_out: a part in which no single group may hold more than half of the units of a label. A label that few
            groups have is held out all the same, by groups that are not larger than its average one.

    Returns:
        group -> part.

    >>> groups = {name: Counter([("x",)]) for name in "abcdef"}
    >>> parts = draw(groups, {"0": 1 / 3, "1": 2 / 3}, seed=1)
    >>> sorted(parts), sorted(parts.values())
    (['a', 'b', 'c', 'd', 'e', 'f'], ['0', '0', '1', '1', '1', '1'])
    >>> parts == draw(dict(reversed(groups.items())), {"1": 2 / 3, "0": 1 / 3}, seed=1)
    True

    Each part has two of these groups, although one of them has more units than the three others together:

    >>> groups = {name: Counter({("x",): units}) for name, units in zip("abcd", (20, 2, 1, 1), strict=True)}
    >>> sorted(draw(groups, {"0": 1 / 2, "1": 1 / 2}, seed=1).values())
    ['0', '0', '1', '1']
    """
    totals = sum(groups.values(), Counter())
    spread = Counter(cell for counts in groups.values() for cell in counts)      # in how many groups a label occurs
    loads: dict[str, Counter[Cell]] = {part: Counter() for part in shares}       # units
    members: dict[str, Counter[Cell]] = {part: Counter() for part in shares}     # groups
    placed: dict[str, str] = {}
    few = {cell for cell, count in spread.items() if round(count * min(shares.values())) <= _FEW_GROUPS}

    def cells_of(group: str) -> list[Cell]:
        """Labels before labels with source; the rarest first."""
        return sorted(groups[group], key=lambda cell: (len(cell), spread[cell], cell))

    def order(group: str) -> tuple[object, ...]:
        """The rarest label first, then the largest groups, then chance."""
        rarest = cells_of(group)[0]
        return spread[rarest], rarest, -groups[group][rarest], _random(seed, "", group, 1.0)

    def overload(group: str, part: str) -> tuple[object, ...]:
        """How far a part would be over its target with the group: compared label by label, then chance."""
        levels = (level for cell in cells_of(group) for level in overload_of(cell, groups[group][cell], part))
        return *levels, _random(seed, part, group, shares[part]), part

    def overload_of(cell: Cell, units: int, part: str) -> tuple[float, ...]:
        target = totals[cell] * shares[part]
        usual = totals[cell] / spread[cell] if cell in few else 1.0      # else all of few groups would be too large
        if part == held_out and units > max(usual, _HELD_OUT_SHARE * target):
            return (math.inf,)
        of_units = _level(loads[part][cell], units, target)
        if len(cell) > 1:
            return (of_units,)
        return _group_level(members[part][cell], spread[cell] * shares[part], few=cell in few), of_units

    for group in sorted(groups, key=order):
        placed[group] = min(shares, key=lambda part: overload(group, part))
        loads[placed[group]].update(groups[group])
        members[placed[group]].update(set(groups[group]))
    return placed


def _group_level(load: int, target: float, *, few: bool) -> float:
    """`_level` of one group more; where not few groups have the label, only what is far above the target counts."""
    return _level(load, 1, target) if few else max(0.0, load + 1 - math.ceil(_MOST_GROUPS * target))


def _level(load: int, units: int, target: float) -> float:
    """0: fits below the target; 1: into its last, rounded-up place; above 1: by how many units or groups it is over."""
    if load + units <= math.floor(target):
        return 0.0
    return 1.0 + max(0, load + units - math.ceil(target))


def _random(seed: int, part: str, group: str, weight: float) -> float:
    """An exponential variate of rate `weight`. A part has the smallest one with a probability equal to its weight."""
    digest = hashlib.sha256(f"{seed}\n{part}\n{group}".encode()).digest()
    return -math.log((int.from_bytes(digest[:6], "big") + 1) / 2**48) / weight
