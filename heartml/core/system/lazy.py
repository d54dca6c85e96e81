"""Sequences whose items are made at each access, so that a thousand recordings need not be in memory at once."""

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

T_co = TypeVar("T_co", covariant=True)


class LazySequence(Sequence[T_co], Generic[T_co]):
    """`count` items; item `i` is `make(i)`, made anew at each access. A slice is lazy too.

    >>> squares = LazySequence(lambda i: i * i, 5)
    >>> len(squares), squares[3], squares[-1], list(squares[1:4])
    (5, 9, 16, [1, 4, 9])
    """

    def __init__(self, make: Callable[[int], T_co], count: int) -> None:
        self._make, self._count = make, count

    @overload
    def __getitem__(self, position: int) -> T_co: ...
    @overload
    def __getitem__(self, position: slice) -> "LazySequence[T_co]": ...
    def __getitem__(self, position: int | slice) -> "T_co | LazySequence[T_co]":
        if isinstance(position, slice):
            return select_rows(self, np.arange(self._count)[position])
        if not -self._count <= position < self._count:
            raise IndexError(position)
        return self._make(position % self._count)

    def __len__(self) -> int:
        return self._count


def select_rows(items: Sequence[T_co], chosen: NDArray[np.int64]) -> LazySequence[T_co]:
    """The items at the positions `chosen` `[n]`, in that order, each taken from `items` at its access.

    >>> list(select_rows("abc", np.array([2, 0])))
    ['c', 'a']
    """
    return LazySequence(lambda position: items[int(chosen[position])], len(chosen))
