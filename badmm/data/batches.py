"""CIFAR's Python batches (Krizhevsky, 2009): pickled dictionaries, read without unpickling.

The opcodes are interpreted here; nothing is imported or called. What they may build is plain values and NumPy arrays of
bytes; arrays come from their raw bytes and a shape that matches them, never from a state that a file hands to NumPy.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
_LARGEST = 1 << 30
_MARK = object()


@dataclass
class _Call:
    """`name(*arguments)` as a pickle asks for it, and the state that it sets; only known forms become a value."""

    name: str
    arguments: tuple[Any, ...] = ()
    state: Any = None


class _Refused(ValueError):
    """A pickle that asks for something else."""


def read_pickle(path: Path) -> dict[str, Any]:
    """A pickled dictionary of byte arrays and plain values, keys as text; ValueError naming the file otherwise."""
    size = path.stat().st_size
    if size > _LARGEST:
        raise ValueError(f"{path}: expected at most {_LARGEST} bytes, got {size}")
    try:
        content = _value(_interpret(path.read_bytes()))
    except Exception as error:  # damaged opcodes can raise nearly anything
        raise ValueError(f"{path}: expected a batch of arrays and plain values, got: {str(error)[:200]}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected a dictionary, got {type(content).__name__}")
    return {key.decode("latin1") if isinstance(key, bytes) else str(key): value for key, value in content.items()}


def _interpret(content: bytes) -> Any:
    """The object that the opcodes build, with a `_Call` wherever one would be made."""
    stack: list[Any] = []
    memo: dict[int, Any] = {}
    for opcode, argument, _ in pickletools.genops(content):
        name = opcode.name
        if name == "STOP":
            return stack.pop()
        if name in _IGNORED:
            continue
        if name in _CONSTANTS:
            stack.append(_CONSTANTS[name]())
        elif name in _LITERALS:
            stack.append(argument)
        elif name in ("MEMOIZE", "PUT", "BINPUT", "LONG_BINPUT"):
            memo[len(memo) if argument is None else int(argument)] = stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(memo[int(argument or 0)])
        elif name in _OPERATIONS:
            _OPERATIONS[name](stack, argument)
        else:
            raise _Refused(f"{name} is not allowed")
    raise _Refused("no end")


_IGNORED = frozenset({"PROTO", "FRAME"})
_LITERALS = frozenset(
    {"INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"}
    | {"STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"}
    | {"UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"}
)
_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_TUPLE": tuple,
    "MARK": lambda: _MARK,
}


def _to_mark(stack: list[Any]) -> list[Any]:
    place = max(index for index, item in enumerate(stack) if item is _MARK)
    items = stack[place + 1 :]
    del stack[place:]
    return items


def _tuple_of(count: int) -> Callable[[list[Any], Any], None]:
    def build(stack: list[Any], _: Any) -> None:
        items = tuple(stack[-count:])
        del stack[-count:]
        stack.append(items)

    return build


def _tuple(stack: list[Any], _: Any) -> None:
    stack.append(tuple(_to_mark(stack)))


def _list(stack: list[Any], _: Any) -> None:
    stack.append(_to_mark(stack))


def _dict(stack: list[Any], _: Any) -> None:
    items = _to_mark(stack)
    stack.append(dict(zip(items[::2], items[1::2], strict=True)))


def _append(stack: list[Any], _: Any) -> None:
    item = stack.pop()
    stack[-1].append(item)


def _appends(stack: list[Any], _: Any) -> None:
    items = _to_mark(stack)
    stack[-1].extend(items)


def _set_item(stack: list[Any], _: Any) -> None:
    value, key = stack.pop(), stack.pop()
    stack[-1][key] = value


def _set_items(stack: list[Any], _: Any) -> None:
    items = _to_mark(stack)
    stack[-1].update(zip(items[::2], items[1::2], strict=True))


def _global(stack: list[Any], argument: str) -> None:
    stack.append(_named(*argument.split(" ", 1)))


def _stack_global(stack: list[Any], _: Any) -> None:
    name, module = stack.pop(), stack.pop()
    stack.append(_named(module, name))


def _named(module: str, name: str) -> _Call:
    whole = f"{module}.{name}".replace("numpy._core.", "numpy.core.")  # the name since NumPy 2
    if whole not in _FORMS and whole != "numpy.ndarray":
        raise _Refused(f"{module}.{name} is not allowed")
    return _Call(whole)


def _reduce(stack: list[Any], _: Any) -> None:
    arguments, call = stack.pop(), stack.pop()
    stack.append(_Call(call.name, tuple(arguments)))


def _build(stack: list[Any], _: Any) -> None:
    state = stack.pop()
    stack[-1].state = state


_OPERATIONS: dict[str, Callable[[list[Any], Any], None]] = {
    **{f"TUPLE{count}": _tuple_of(count) for count in (1, 2, 3)},
    "TUPLE": _tuple,
    "LIST": _list,
    "DICT": _dict,
    "APPEND": _append,
    "APPENDS": _appends,
    "SETITEM": _set_item,
    "SETITEMS": _set_items,
    "GLOBAL": _global,
    "STACK_GLOBAL": _stack_global,
    "REDUCE": _reduce,
    "BUILD": _build,
}


def _value(item: Any) -> Any:
    """A dictionary whose values are plain, arrays, or lists of plain values: nesting could repeat without bound."""
    if isinstance(item, dict):
        return {_plain(key): _entry(value) for key, value in item.items()}
    return _entry(item)


def _entry(item: Any) -> Any:
    if isinstance(item, _Call):
        return _FORMS[item.name](item)
    return type(item)(_plain(part) for part in item) if isinstance(item, list | tuple) else _plain(item)


def _plain(item: Any) -> Any:
    if item is not None and not isinstance(item, str | bytes | bytearray | int | float):
        raise _Refused(f"{type(item).__name__.strip('_').lower()} inside another is not allowed")
    return item


def _reconstructed(call: _Call) -> Bytes:
    """An array with its state (version, shape, dtype, column order, content)."""
    if not isinstance(call.arguments[0], _Call) or call.arguments[0].name != "numpy.ndarray":
        raise _Refused(f"an array of kind {call.arguments[0]!r:.60} is not allowed")
    _, shape, dtype, columns, content = call.state
    return _array(content, dtype, shape, bool(columns))


def _from_buffer(call: _Call) -> Bytes:
    """An array of protocol 5: (content, dtype, shape, order)."""
    content, dtype, shape, order = call.arguments
    return _array(content, dtype, shape, order == "F")


def _array(content: Any, dtype: Any, shape: Any, columns: bool) -> Bytes:
    if not isinstance(dtype, _Call) or dtype.name != "numpy.dtype" or dtype.arguments[0] not in ("u1", "f8"):
        raise _Refused(f"an array of dtype {dtype!r:.80} is not allowed")
    raw = content.encode("latin1") if isinstance(content, str) else bytes(content)
    kind = np.dtype(f"<{dtype.arguments[0]}")
    sizes = tuple(int(size) for size in shape)
    if min(sizes, default=0) < 0 or int(np.prod(sizes, dtype=object)) * kind.itemsize != len(raw):
        raise _Refused(f"{len(raw)} bytes for an array of shape {sizes}")
    # torch wants memory that it may write to
    return np.frombuffer(bytearray(raw), dtype=kind).reshape(sizes, order="F" if columns else "C")


def _dtype(call: _Call) -> Any:
    raise _Refused("a dtype alone is not allowed")


_FORMS: dict[str, Callable[[_Call], Any]] = {
    "numpy.core.multiarray._reconstruct": _reconstructed,
    "numpy.core.numeric._frombuffer": _from_buffer,
    "numpy.dtype": _dtype,
}


def read_cifar(path: Path, labels: str) -> tuple[Bytes, NDArray[np.int64]]:
    """Images (N, 3, 32, 32) and the labels under the key `labels` of one batch."""
    batch = read_pickle(path)
    for key in ("data", labels):
        if key not in batch:
            raise ValueError(f"{path}: expected a key {key!r}, got {', '.join(sorted(batch)) or 'none'}")
    images, values = batch["data"], batch[labels]
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8 or images.ndim != 2 or images.shape[1] != 3072:
        got = f"{images.dtype} {images.shape}" if isinstance(images, np.ndarray) else type(images).__name__
        raise ValueError(f"{path}: data: expected bytes of shape (N, 3072), got {got}")
    if not isinstance(values, list) or not all(type(value) is int for value in values):
        raise ValueError(f"{path}: {labels}: expected a list of integers, got {type(values).__name__}")
    if len(values) != len(images):
        raise ValueError(f"{path}: {labels}: expected {len(images)} labels, one per image, got {len(values)}")
    return images.reshape(-1, 3, 32, 32), np.array(values, dtype=np.int64)
