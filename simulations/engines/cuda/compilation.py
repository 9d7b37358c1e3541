"""What `torch.compile` makes of functions: fewer and larger kernels, for seconds before the first round."""

from collections.abc import Callable
from typing import Any, TypeVar

import torch

F = TypeVar("F", bound=Callable[..., Any])

_RECOMPILATIONS_MAX = 64
"""Of one function: every engine of a process counts, and after torch's own 8 it would stop compiling and say little."""


class Compiler:
    """Compiles, and where it cannot, says so and leaves the function as it is.

    Args:
        backend: Of `torch.compile`, as `inductor`; None compiles nothing.
        say: Told of what could not be compiled.
    """

    def __init__(self, backend: str | None, say: Callable[[str], None]) -> None:
        self._backend, self._say = backend, say

    @property
    def is_used(self) -> bool:
        return self._backend is not None

    def of(self, function: F, *, is_dynamic: bool) -> F:
        """The function, compiled when it is first called.

        Args:
            function: Reads and writes tensors; what it reads beside them must stay as it is.
            is_dynamic: Once for all shapes, which elementwise work loses nothing by; otherwise once for each.
        """
        if self._backend is None:
            return function
        from torch._dynamo.exc import TorchDynamoException  # a second to import, which who does not compile saves
        from torch._inductor.exc import InductorError

        fast: Callable[..., Any] | None = torch.compile(function, backend=self._backend, dynamic=is_dynamic)

        def call(*arguments: Any, **settings: Any) -> Any:
            nonlocal fast
            if fast is not None:
                try:
                    with torch._dynamo.config.patch(recompile_limit=_RECOMPILATIONS_MAX):
                        return fast(*arguments, **settings)
                except (TorchDynamoException, InductorError) as error:  # before anything was written
                    fast = None
                    reason = next(iter(str(error).splitlines()), type(error).__name__)
                    self._say(f"{function.__name__} is not compiled: {reason[:200]}")
            return function(*arguments, **settings)

        return call  # type: ignore[return-value]  # takes and gives what the function does
