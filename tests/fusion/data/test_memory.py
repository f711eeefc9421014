import pytest
import torch

from cache.errors import MmerError
from fusion.data.memory import is_out_of_memory, memory_needed

CPU = torch.device("cpu")
SAID = (  # by libraries that have no error of their own for it
    "CUDA error: out of memory",
    "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
    "MPS backend out of memory (MPS allocated: 9.06 GB)",
)


def test_a_cpu_that_cannot_allocate_is_out_of_memory() -> None:
    with pytest.raises(MmerError, match=r"^cpu is out of memory; lower it$"), memory_needed(CPU, "lower it"):
        torch.empty(2**60)


@pytest.mark.parametrize("size", [2**62, 2**80])
def test_a_size_that_no_memory_has_is_too_much_too(size: int) -> None:
    with pytest.raises((RuntimeError, TypeError)) as caught:
        torch.empty(size)
    assert is_out_of_memory(caught.value)


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA"), MemoryError(), *map(RuntimeError, SAID)])
def test_errors_of_memory_are_told_from_others(error: Exception) -> None:
    assert is_out_of_memory(error)
    assert not is_out_of_memory(RuntimeError("shapes do not match"))
    with pytest.raises(RuntimeError, match="shapes"), memory_needed(CPU, ""):
        raise RuntimeError("shapes do not match")
