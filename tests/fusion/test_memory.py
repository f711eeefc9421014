import pytest
import torch

from cache.errors import MmerError
from fusion.memory import is_out_of_memory, memory_needed

CPU = torch.device("cpu")


def test_a_cpu_that_cannot_allocate_is_out_of_memory() -> None:
    with pytest.raises(MmerError, match=r"^cpu is out of memory; lower it$"), memory_needed(CPU, "lower it"):
        torch.empty(2**60)


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), MemoryError()])
def test_errors_of_memory_are_told_from_others(error: Exception) -> None:
    assert is_out_of_memory(error)
    assert not is_out_of_memory(RuntimeError("shapes do not match"))
    with pytest.raises(RuntimeError, match="shapes"), memory_needed(CPU, ""):
        raise RuntimeError("shapes do not match")
