"""Frames, and the checks of fields that need no verifier, as SPEC.md §2 to §6 have them."""

import unicodedata

FRAME_BYTES_MAX = 196_608
NAME_BYTES_MAX = 64
BODY_BYTES_MAX = 131_072
TOKEN_BYTES_MAX = 4_096
TEXT_BYTES_MAX = 1_024
PENDING_MAX = 100
KEY_BYTES_MAX = 32
VALUE_BYTES_MAX = 4_096
KEYS_MAX = 300
KEYS_PER_CHANGE_MAX = 20
CHANGES_RANGE_MAX = 300
EXPAND = 5

NAMES = {"group", "channel_name", "user", "sender", "device"}
TEXTS = {"client": TEXT_BYTES_MAX, "edge": TEXT_BYTES_MAX, "reason": TEXT_BYTES_MAX, "message": TEXT_BYTES_MAX}
REQUESTS = {
    "CreateGroup", "CreateChannel", "Join", "Leave", "Send", "Subscribe", "Unsubscribe", "Sync", "History", "Resume",
    "Kick", "Mute", "Change", "Changes", "ReadExpansion",
}
# Requests that name a place in a log by a position or by a time stamp.
BY_TS = {"Subscribe", "Sync", "History", "Resume"}


class Refused(Exception):
    """A frame or a message that SPEC.md forbids."""

    def __init__(self, code: str, request: str = "0", text: str = ""):
        super().__init__(f"{code}: {text}")
        self.code = code
        self.request = request


def encode_frame(kind: int, payload: bytes) -> bytes:
    """length · type · payload"""
    length = len(payload)
    if length > FRAME_BYTES_MAX:
        raise ValueError("the payload is over the limit")
    prefix = bytearray()
    while length >= 0x80:
        prefix.append(length & 0x7F | 0x80)
        length >>= 7
    prefix.append(length)
    return bytes(prefix) + bytes([kind]) + payload


class FrameReader:
    """Cuts a stream into (type, payload)."""

    def __init__(self):
        self.buffer = bytearray()

    def push(self, data: bytes):
        self.buffer += data

    def next(self):
        """The next frame, or None while more bytes are needed."""
        length = 0
        for place in range(3):
            if place >= len(self.buffer):
                return None
            byte = self.buffer[place]
            length |= (byte & 0x7F) << (7 * place)
            if byte < 0x80:
                if place and byte == 0:
                    raise Refused("malformed_frame", text="the length has a shorter form")
                break
        else:
            raise Refused("malformed_frame", text="the length has more than three bytes")
        if length > FRAME_BYTES_MAX:
            raise Refused("frame_too_large", text=f"{length} bytes")
        header = place + 2
        if len(self.buffer) < header + length:
            return None
        kind = self.buffer[header - 1]
        payload = bytes(self.buffer[header : header + length])
        del self.buffer[: header + length]
        return kind, payload

    def end(self):
        """The stream has ended."""
        if self.buffer:
            raise Refused("malformed_frame", text="the stream ended inside a frame")


def check(schema, name: str, fields: dict):
    """Raises Refused for the first field outside its range."""
    request = fields.get("request", "0")

    def refuse(code, text):
        raise Refused(code, request, f"{name}: {text}")

    if name in REQUESTS and request == "0":
        refuse("invalid_field", "request 0")
    for field, kind in schema.tables[name]:
        _check_field(schema, field, kind, fields[field], refuse)
    if name == "Hello" and not 1 <= len(fields["versions"]) <= 16:
        refuse("invalid_field", "versions")
    if name == "Resume" and not 1 <= len(fields["places"]) <= 500:
        refuse("invalid_field", "places")
    for place in fields.get("places", [fields]) if name in BY_TS else []:
        held = (place.get("epoch", 0), place.get("seq", "0"), place.get("anchor", "0"))
        if place["ts"] != "0" and held != (0, "0", "0"):
            refuse("invalid_field", "a position and a time stamp")
    if name == "Fenced" and len(fields["pending"]) > PENDING_MAX:
        refuse("invalid_field", "pending")
    if name in ("Change", "Changes", "ReadExpansion"):
        named = fields.get("target") or fields.get("from") or fields.get("seq")
        if fields["epoch"] == 0 or named == "0":
            refuse("invalid_field", "epoch or seq 0")
    if name == "Change":
        _check_change(fields, refuse)
    if name == "Changes" and not 0 <= int(fields["to"]) - int(fields["from"]) < CHANGES_RANGE_MAX:
        refuse("invalid_field", "to")
    for one in fields.get("entries", [fields]):
        if len(one.get("keys", [])) != len(one.get("values", [])) or len(one.get("keys", [])) > KEYS_MAX:
            refuse("invalid_field", "keys and values")
    if name in ("Deliver", "Page"):
        seqs = [int(entry["seq"]) for entry in fields["entries"]]
        if any(later <= earlier for earlier, later in zip(seqs, seqs[1:])):
            refuse("invalid_field", "entries do not ascend")
        if name == "Deliver" and (not seqs or seqs[0] <= int(fields["prev"])):
            refuse("invalid_field", "prev is not before the first entry")


def _check_change(fields, refuse):
    if not 2 <= fields["kind"] <= EXPAND:
        refuse("invalid_field", "kind")
    keys = fields["keys"] + fields["removed"]
    if fields["kind"] == EXPAND and not 1 <= len(keys) <= KEYS_PER_CHANGE_MAX:
        refuse("invalid_field", "keys")
    if len(set(keys)) != len(keys):
        refuse("invalid_field", "a key twice")


def _check_key(field, key, refuse):
    control = any(unicodedata.category(char) == "Cc" for char in key)
    if control or not 1 <= len(key.encode()) <= KEY_BYTES_MAX:
        refuse("invalid_field", field)


def _check_name(field, value, refuse):
    size = len(value.encode())
    if not 1 <= size <= NAME_BYTES_MAX or any(unicodedata.category(char) == "Cc" for char in value):
        refuse("invalid_field", field)


def _check_field(schema, field, kind, value, refuse):
    if kind == "string":
        if field in NAMES or field == "channel":
            _check_name(field, value, refuse)
        limit = TOKEN_BYTES_MAX if field == "token" else TEXTS.get(field)
        if limit is not None and len(value.encode()) > limit:
            refuse("invalid_field", field)
        if field == "after" and len(value.encode()) > KEY_BYTES_MAX:
            refuse("invalid_field", field)
    elif field in ("keys", "removed"):
        for key in value:
            _check_key(field, key, refuse)
    elif field == "values":
        if any(len(text.encode()) > VALUE_BYTES_MAX for text in value):
            refuse("invalid_field", field)
    elif kind == "[string]":
        if any(len(text.encode()) > TEXT_BYTES_MAX for text in value):
            refuse("invalid_field", field)
        for name in value if field == "pending" else []:
            _check_name(field, name, refuse)
    elif field == "body" and len(value) // 2 > BODY_BYTES_MAX:
        refuse("message_too_large", field)
    elif field == "limit" and value > 300:
        refuse("invalid_field", field)
    elif kind in schema.enums and kind != "ErrorClass" and not isinstance(value, str):
        refuse("invalid_field", field)
    elif kind.startswith("[") and kind[1:-1] in schema.tables:
        for one in value:
            for inner, inner_kind in schema.tables[kind[1:-1]]:
                _check_field(schema, inner, inner_kind, one[inner], refuse)


def decode_message(schema, kind: int, payload: bytes):
    """(name, fields), or None for a frame that is skipped."""
    name = schema.kinds.get(kind)
    if name is None:
        if kind >= 128:
            raise Refused("unknown_critical_frame")
        return None
    fields = schema.decode(name, payload)
    check(schema, name, fields)
    if "class" in fields and not isinstance(fields["class"], str):
        fields["class"] = "Fatal"
    return name, fields


def encode_message(schema, name: str, fields: dict) -> bytes:
    """A whole frame."""
    kind = next(number for number, known in schema.kinds.items() if known == name)
    return encode_frame(kind, schema.encode(name, fields))
