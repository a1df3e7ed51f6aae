"""Tables of client.fbs, read and written by the schema alone.

No generated code: the schema file is parsed, a field's slot is its place in its table, and the
flatbuffers runtime does the rest. Messages are dicts as in the vectors: 64-bit numbers are decimal
strings, bytes are base16, enum values are names (an unknown one is its number).
"""

import re
from pathlib import Path

import flatbuffers
from flatbuffers import number_types as N
from flatbuffers.table import Table

SCALARS = {
    "bool": N.BoolFlags,
    "ubyte": N.Uint8Flags,
    "ushort": N.Uint16Flags,
    "uint": N.Uint32Flags,
    "ulong": N.Uint64Flags,
}


class Malformed(Exception):
    """The payload is not the table it should be."""


class Schema:
    """The tables, the enums, and the frame types."""

    def __init__(self, path: Path):
        source = path.read_text(encoding="utf-8")
        self.kinds = {
            int(kind): name for kind, name in re.findall(r"// Frame (\d+),[^\n]*\n(?://[^\n]*\n)*table (\w+)", source)
        }
        plain = re.sub(r"//[^\n]*", "", source)
        self.enums = {}
        for name, body in re.findall(r"enum (\w+) : ubyte \{(.*?)\}", plain, re.S):
            values = (value.split("=") for value in body.split(","))
            self.enums[name] = {int(number): value.strip() for value, number in values}
        self.tables = {}
        for name, body in re.findall(r"table (\w+) \{(.*?)\}", plain, re.S):
            self.tables[name] = re.findall(r"(\w+): (\[?\w+\]?);", body)

    # ---- bytes to fields ----------------------------------------------------------------------

    def decode(self, name: str, payload: bytes) -> dict:
        """The fields of a payload. Bounds are those of the runtime: this is no verifier."""
        try:
            root = flatbuffers.encode.Get(N.UOffsetTFlags.packer_type, payload, 0)
            return self._table(name, Table(bytearray(payload), root))
        except (IndexError, ValueError, TypeError, UnicodeDecodeError, OverflowError) as error:
            raise Malformed(f"{name}: {error}") from error
        except Exception as error:  # struct.error and the runtime's own
            raise Malformed(f"{name}: {error}") from error

    def _table(self, name: str, table: Table) -> dict:
        fields = {}
        for slot, (field, kind) in enumerate(self.tables[name]):
            at = table.Offset(4 + 2 * slot)
            fields[field] = self._field(kind, table, at)
        return fields

    def _field(self, kind: str, table: Table, at: int):
        if kind == "string":
            return table.String(at + table.Pos).decode("utf-8") if at else ""
        if kind.startswith("["):
            return self._vector(kind[1:-1], table, at)
        if kind in self.enums:
            number = table.Get(N.Uint8Flags, at + table.Pos) if at else 0
            return self.enums[kind].get(number, number)
        number = table.Get(SCALARS[kind], at + table.Pos) if at else 0
        if kind == "bool":
            return bool(number)
        return str(number) if kind == "ulong" else number

    def _vector(self, kind: str, table: Table, at: int):
        start = table.Vector(at) if at else 0
        length = table.VectorLen(at) if at else 0
        if kind == "ubyte":
            if start + length > len(table.Bytes):
                raise ValueError("a vector leaves the payload")
            return bytes(table.Bytes[start : start + length]).hex()
        if kind in SCALARS:
            flags = SCALARS[kind]
            return [table.Get(flags, start + flags.bytewidth * place) for place in range(length)]
        places = (start + 4 * place for place in range(length))
        if kind == "string":
            return [table.String(place).decode("utf-8") for place in places]
        return [self._table(kind, Table(table.Bytes, table.Indirect(place))) for place in places]

    # ---- fields to bytes ----------------------------------------------------------------------

    def encode(self, name: str, fields: dict) -> bytes:
        """A payload."""
        builder = flatbuffers.Builder(256)
        builder.Finish(self._build(builder, name, fields))
        return bytes(builder.Output())

    def _build(self, builder, name: str, fields: dict) -> int:
        unknown = set(fields) - {field for field, _ in self.tables[name]}
        if unknown:
            raise ValueError(f"{name} has no fields {unknown}")
        slots = []
        for slot, (field, kind) in enumerate(self.tables[name]):
            if field in fields:
                slots.append((slot, kind, self._value(builder, kind, fields[field])))
        builder.StartObject(len(self.tables[name]))
        for slot, kind, value in slots:
            if kind == "string" or kind.startswith("["):
                builder.PrependUOffsetTRelativeSlot(slot, value, 0)
            elif kind == "bool":
                builder.PrependBoolSlot(slot, value, False)
            else:
                prepend = {
                    "ubyte": builder.PrependUint8Slot,
                    "ushort": builder.PrependUint16Slot,
                    "uint": builder.PrependUint32Slot,
                    "ulong": builder.PrependUint64Slot,
                }["ubyte" if kind in self.enums else kind]
                prepend(slot, value, 0)
        return builder.EndObject()

    def _value(self, builder, kind: str, value):
        if kind == "string":
            return builder.CreateString(value)
        if kind == "[ubyte]":
            return builder.CreateByteVector(bytes.fromhex(value))
        if kind == "[ushort]":
            builder.StartVector(2, len(value), 2)
            for number in reversed(value):
                builder.PrependUint16(number)
            return builder.EndVector()
        if kind.startswith("["):
            inner = kind[1:-1]
            build = builder.CreateString if inner == "string" else lambda one: self._build(builder, inner, one)
            offsets = [build(one) for one in value]
            builder.StartVector(4, len(offsets), 4)
            for offset in reversed(offsets):
                builder.PrependUOffsetTRelative(offset)
            return builder.EndVector()
        if kind in self.enums:
            numbers = {text: number for number, text in self.enums[kind].items()}
            return numbers.get(value, value)
        return value if kind == "bool" else int(value)
