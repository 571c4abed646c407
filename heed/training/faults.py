"""What to do when a step fails: find where a number stopped being finite, and tell a lack of memory from other errors."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

# How torch's allocator for CPUs, oneDNN, C++ and CUDA's libraries word it; torch's allocator for GPUs has a class of its own.
NO_MEMORY = (
    *("can't allocate memory", "not enough memory", "could not create a primitive", "could not create a memory", "std::bad_alloc"),
    *("CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED"),
)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that memory ran out."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in NO_MEMORY)


def first_fault(model: nn.Module, compute: Callable[[], Tensor]) -> str | None:
    """Compute a loss and its gradients again, and name the place where the first number arose that is not finite.

    Args:
        compute: returns the loss, a scalar; its random draws are those of the time that failed.
    Returns:
        a parameter, the output of a module, the loss, or the gradient at a module's output or of a parameter, in the order in which
        a step makes them; None when everything is finite this time.
    """
    for name, parameter in model.named_parameters():
        if not _finite(parameter):
            return f"parameter {name}"
    faults: list[str] = []

    def watched(name: str) -> Callable[..., None]:
        def look(module: nn.Module, inputs: Any, output: Any) -> None:
            for tensor in _tensors(output):
                if not faults and not _finite(tensor):
                    faults.append(f"output of {name}")
                if tensor.requires_grad:
                    tensor.register_hook(look_at_gradient)  # type: ignore[no-untyped-call]

        def look_at_gradient(gradient: Tensor) -> None:
            if not faults and not _finite(gradient):
                faults.append(f"gradient at {name}")

        return look

    handles = [module.register_forward_hook(watched(name)) for name, module in model.named_modules() if name]
    try:
        model.zero_grad(set_to_none=True)
        loss = compute()
        if not faults and not _finite(loss):
            faults.append("loss")
        if not faults:
            torch.autograd.backward(loss)
        for name, parameter in model.named_parameters():
            if not faults and parameter.grad is not None and not _finite(parameter.grad):
                faults.append(f"gradient of {name}")
    finally:
        for handle in handles:
            handle.remove()
        model.zero_grad(set_to_none=True)
    return faults[0] if faults else None


def _finite(tensor: Tensor) -> bool:
    return bool(tensor.detach().isfinite().all())


def _tensors(output: Any) -> Iterator[Tensor]:
    if isinstance(output, Tensor):
        if output.is_floating_point():
            yield output
    elif isinstance(output, tuple | list):
        for one in output:
            yield from _tensors(one)
