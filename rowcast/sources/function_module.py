"""
The functions of a source: ``connectors/<source>.py`` beside its file, for what a declaration cannot say.

`apply` stores the text of the module with the definition, so that every worker runs exactly what was applied and
needs no project folder. Whatever the module imports has to be installed where workers run.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import Any

from rowcast.errors import ConfigurationError

Function = Callable[..., Any]


def load_functions(text: str, source: str) -> dict[str, Function]:
    """
    The public functions that the module *text* of *source* defines.

    Raises:
        ConfigurationError: the module cannot be run.

    """
    where = f"connectors/{source}.py"
    names: dict[str, Any] = {"__name__": f"rowcast_functions_{source}"}
    try:
        exec(compile(text, where, "exec"), names)  # noqa: S102 - running the team's own code is what it is for
    except Exception as error:
        raise ConfigurationError(
            f"cannot be run: {type(error).__name__}: {error}", where=where, fix="correct the module"
        ) from error
    return {name: each for name, each in names.items() if inspect.isfunction(each) and not name.startswith("_")}


def misfit(functions: dict[str, Function], name: str, inputs: Iterable[str], places: int = 0) -> tuple[str, str] | None:
    """
    Why *name* cannot be called with parameters called *inputs*, behind *places* without name, and what would be
    accepted; None when it can.
    """
    function = functions.get(name)
    if function is None:
        return f"the module beside the file has no function {name!r}", ", ".join(functions) or f"def {name}(…)"
    if inspect.iscoroutinefunction(function) or inspect.isgeneratorfunction(function):
        return f"{name!r} does not return its value", f"def {name}(…): return …"
    try:
        inspect.signature(function).bind(*[None] * places, **dict.fromkeys(inputs))
    except TypeError as error:
        return f"{name!r} cannot be called with these inputs: {error}", str(inspect.signature(function))
    return None


def line_of(error: BaseException) -> int | None:
    """The innermost line of a function module that *error* came through."""
    line, step = None, error.__traceback__
    while step is not None:
        if step.tb_frame.f_globals.get("__name__", "").startswith("rowcast_functions_"):
            line = step.tb_lineno
        step = step.tb_next
    return line
