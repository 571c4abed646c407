"""What to do when a step fails: find where a number stopped being finite, and tell a lack of memory from other errors."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from heed.errors import TrainingError

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


@contextmanager
def explaining_lack_of_memory(folder: Path) -> Iterator[None]:
    """Say in one line that memory ran out where no smaller batch helps: in the optimizer, in validation, in saving."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        what = str(error).partition("\n")[0][:120] or type(error).__name__  # Python's own has no words
        raise TrainingError(
            f"memory ran out ({what}); use a smaller model, or go on where there is more: heed train --resume {folder}"
        ) from error


def first_fault(model: nn.Module, compute: Callable[[], Tensor]) -> str | None:
    """Compute a loss and its gradients again, and name the place where the first number arose that is not finite.

    Args:
        compute: returns the loss, a scalar; its random draws are those of the time that failed.
    Returns:
        a parameter, the output of a module, the loss, or the gradient at a module's output or of a parameter, in the order in which
        a step makes them; None when everything is finite this time.
    """
    first = _First()
    for name, parameter in model.named_parameters():
        first.look(f"parameter {name}", parameter)
    if first.place is not None:
        return first.place
    handles = [first.watch(module, name) for name, module in model.named_modules() if name]
    try:
        model.zero_grad(set_to_none=True)
        loss = compute()
        first.look("loss", loss)
        if first.place is None:
            torch.autograd.backward(loss)
        for name, parameter in model.named_parameters():
            if parameter.grad is not None:
                first.look(f"gradient of {name}", parameter.grad)
    finally:
        for handle in handles:
            handle.remove()
        model.zero_grad(set_to_none=True)
    return first.place


class _First:
    """The first of the places that were looked at which held a number that is not finite."""

    def __init__(self) -> None:
        self.place: str | None = None

    def look(self, place: str, tensor: Tensor) -> None:
        """Note a place, unless there was one before."""
        if self.place is None and not tensor.detach().isfinite().all():
            self.place = place

    def watch(self, module: nn.Module, name: str) -> RemovableHandle:
        """Look at whatever a module gives out from now on, and at the gradients there."""

        def note(module: nn.Module, inputs: Any, output: Any) -> None:
            for tensor in _tensors(output):
                self.look(f"output of {name}", tensor)
                if tensor.requires_grad:
                    tensor.register_hook(lambda gradient: self.look(f"gradient at {name}", gradient))  # type: ignore[no-untyped-call]

        return module.register_forward_hook(note)


def _tensors(output: Any) -> Iterator[Tensor]:
    if isinstance(output, Tensor):
        if output.is_floating_point():
            yield output
    elif isinstance(output, tuple | list):
        for one in output:
            yield from _tensors(one)
