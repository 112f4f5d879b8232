import pytest
import torch
from threadpoolctl import threadpool_info  # type: ignore[import-untyped]

from advisor.merging.threads import single_threaded


def test_every_pool_has_one_thread_inside_and_its_own_count_after() -> None:
    before = torch.get_num_threads(), [pool["num_threads"] for pool in threadpool_info()]
    with single_threaded():
        assert torch.get_num_threads() == 1
        assert {pool["num_threads"] for pool in threadpool_info()} == {1}
    assert (torch.get_num_threads(), [pool["num_threads"] for pool in threadpool_info()]) == before


def test_threads_are_restored_after_an_error() -> None:
    before = torch.get_num_threads()
    with pytest.raises(KeyError, match="inside"), single_threaded():
        raise KeyError("inside")
    assert torch.get_num_threads() == before
