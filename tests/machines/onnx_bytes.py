"""Tiny ONNX files, written in their wire format (onnx.proto3): the `onnx` package is no dependency."""

from __future__ import annotations


def _field(number: int, value: int | str | bytes) -> bytes:
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    data = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def _value(name: str, shape: list[int | str]) -> bytes:
    """ValueInfoProto of a float tensor; a text in its shape is a free dimension."""
    dims = b"".join(_field(1, _field(1 if isinstance(size, int) else 2, size)) for size in shape)
    return _field(1, name) + _field(2, _field(1, _field(1, 1) + _field(2, dims)))


def node(kind: str, inputs: list[str], outputs: list[str]) -> bytes:
    """NodeProto without attributes."""
    return b"".join([*(_field(1, i) for i in inputs), *(_field(2, o) for o in outputs), _field(4, kind)])


def tensor(name: str, dims: list[int], *, raw: bytes = b"", outside: str = "") -> bytes:
    """TensorProto of floats: its bytes, or the file that is said to hold them."""
    sizes = b"".join(_field(1, size) for size in dims)
    place = _field(13, _field(1, "location") + _field(2, outside)) + _field(14, 1)
    return sizes + _field(2, 1) + _field(8, name) + (place if outside else _field(9, raw))


def graph(
    nodes: list[bytes],
    inputs: dict[str, list[int | str]],
    output: list[int | str],
    tensors: list[bytes] | None = None,
) -> bytes:
    """ModelProto with the output ``y``."""
    declared = [_field(11, _value(name, shape)) for name, shape in inputs.items()]
    parts = [_field(1, one) for one in nodes] + [_field(2, "g")] + [_field(5, one) for one in tensors or []]
    ends = [*declared, _field(12, _value("y", output))]
    return _field(1, 8) + _field(7, b"".join(parts + ends)) + _field(8, _field(1, "") + _field(2, 17))


def model(operators: list[str], inputs: list[list[int | str]], output: list[int | str]) -> bytes:
    """A chain of operators without attributes; all inputs but the first are declared and not used."""
    names = ["x", *(f"t{n}" for n in range(1, len(operators))), "y"]
    nodes = [node(kind, [names[n]], [names[n + 1]]) for n, kind in enumerate(operators)]
    return graph(nodes, {"x" if n == 0 else f"x{n}": shape for n, shape in enumerate(inputs)}, output)
