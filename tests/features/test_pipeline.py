"""The conveyor belt: order kept, bounded, and every item once."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mst_clipiqa.features.pipeline import in_batches, in_order


@given(items=st.lists(st.integers()), size=st.integers(1, 7))
def test_joined_batches_are_the_items(items: list[int], size: int) -> None:
    batches = list(in_batches(items, size))
    assert [x for batch in batches for x in batch] == items
    assert all(len(batch) == size for batch in batches[:-1])


@settings(max_examples=30, deadline=None)
@given(items=st.lists(st.integers(), max_size=30), workers=st.integers(1, 4), ahead=st.integers(1, 5))
def test_order_is_kept(items: list[int], workers: int, ahead: int) -> None:
    assert list(in_order(items, lambda x: x + 1, workers=workers, ahead=ahead)) == [(x, x + 1) for x in items]


def test_slow_items_do_not_overtake() -> None:
    def work(x: int) -> int:
        time.sleep(0.02 if x == 0 else 0)
        return x

    assert [y for _, y in in_order(range(8), work, workers=4, ahead=8)] == list(range(8))


def test_no_more_is_begun_than_asked_for() -> None:
    begun, lock = [], threading.Lock()

    def work(x: int) -> int:
        with lock:
            begun.append(x)
        return x

    for taken, _ in enumerate(in_order(range(100), work, workers=3, ahead=5), start=1):
        assert len(begun) <= taken + 5


def test_what_work_raises_comes_out_at_its_item() -> None:
    def work(x: int) -> int:
        if x == 3:
            raise ValueError("three")
        return x

    stream = in_order(range(10), work, workers=2, ahead=4)
    assert [next(stream)[0] for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="three"):
        next(stream)


@pytest.mark.parametrize("failing", range(8))
@pytest.mark.parametrize("size", [1, 3])
def test_what_reading_items_raises_comes_out_after_the_items_before_it(failing: int, size: int) -> None:
    def items() -> Iterator[int]:
        yield from range(failing)
        raise ValueError("cannot be read")

    seen: list[int] = []
    rows = in_order(items(), lambda x: x, workers=2, ahead=4)
    with pytest.raises(ValueError, match="cannot be read"):
        seen.extend(item for batch in in_batches(rows, size) for item, _ in batch)
    assert seen == list(range(failing))


def test_an_interrupt_in_reading_items_waits_for_nothing() -> None:
    def items() -> Iterator[int]:
        yield 0
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        next(in_order(items(), lambda x: x, workers=1, ahead=2))


def test_an_interrupt_does_not_wait_for_work_under_way() -> None:
    is_free = threading.Event()
    rows = in_order(range(4), lambda x: x and is_free.wait(20), workers=2, ahead=4)
    assert next(rows) == (0, 0)
    began = time.monotonic()
    try:
        with pytest.raises(KeyboardInterrupt):
            rows.throw(KeyboardInterrupt)
        assert time.monotonic() - began < 5
    finally:
        is_free.set()


def test_one_that_is_closed_in_a_thread_of_its_own_does_not_wait_for_itself() -> None:
    closed: list[BaseException | None] = []

    def work(n: int) -> int:
        if n == 1:
            entered.wait()
            try:
                rows.close()
                closed.append(None)
            except RuntimeError as error:
                closed.append(error)
        return n

    entered = threading.Event()
    rows = in_order(range(9), work, workers=1, ahead=2)
    assert next(rows) == (0, 0)
    entered.set()
    for _ in range(500):
        if closed:
            break
        time.sleep(0.01)
    assert closed == [None]
