"""How many threads torch computes with in a thread of ours."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import torch

from mst_clipiqa.encoders.threads import compute_with, divided_threads


def test_no_other_thread_changes_the_number_of_one_that_encodes() -> None:
    before = torch.get_num_threads()
    compute_with(4)
    try:
        with (
            divided_threads(torch.device("cpu"), 2) as (encoders, start),
            ThreadPoolExecutor(1, initializer=start) as pool,
        ):
            pool.submit(int).result()  # the thread has started, and computed nothing yet
            other = threading.Thread(target=compute_with, args=(3,))
            other.start()
            other.join()
            assert (encoders, pool.submit(torch.get_num_threads).result()) == (2, 2)
        assert torch.get_num_threads() == 4
    finally:
        compute_with(before)
