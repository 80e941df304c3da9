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


def model(operators: list[str], inputs: list[list[int | str]], output: list[int | str]) -> bytes:
    """A chain of operators without attributes; all inputs but the first are declared and not used."""
    names = ["x", *(f"t{n}" for n in range(1, len(operators))), "y"]
    nodes = [
        _field(1, _field(1, names[n]) + _field(2, names[n + 1]) + _field(4, kind))
        for n, kind in enumerate(operators)
    ]
    declared = [_field(11, _value("x" if n == 0 else f"x{n}", shape)) for n, shape in enumerate(inputs)]
    graph = b"".join([*nodes, _field(2, "g"), *declared, _field(12, _value("y", output))])
    return _field(1, 8) + _field(7, graph) + _field(8, _field(1, "") + _field(2, 17))
