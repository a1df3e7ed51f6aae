"""The vectors of the protocol against this implementation of it."""

import json
from pathlib import Path

from framing import FrameReader, Refused, decode_message, encode_message
from schema import Malformed


def _frame(data: bytes):
    reader = FrameReader()
    reader.push(data)
    frame = reader.next()
    reader.end()
    return frame


def _positive(schema, vector) -> str:
    kind, payload = _frame(bytes.fromhex(vector["hex"]))
    assert kind == vector["kind"], f"type {kind}"
    name, fields = decode_message(schema, kind, payload)
    assert (name, fields) == (vector["type"], vector["fields"]), f"decoded {name} {fields}"
    kind, payload = _frame(encode_message(schema, name, fields))
    again = decode_message(schema, kind, payload)
    assert again == (name, fields), f"encoded and decoded again {again}"
    return "decoded, encoded, decoded again"


def _malformed(schema, vector) -> str:
    data = bytes.fromhex(vector["hex"])
    try:
        decoded = decode_message(schema, *_frame(data))
        outcome = ("skip", "0") if decoded is None else ("taken", str(decoded))
    except Refused as refused:
        outcome = (refused.code, refused.request)
    except Malformed:
        outcome = ("malformed_frame", "0")
    if outcome != (vector["error"], vector["request"]):
        # The Python runtime has no verifier: what it reads from a payload that lies about itself
        # says nothing. The Rust tests hold these vectors against a verifier.
        if vector["layer"] == "verify":
            return "not judged: needs a FlatBuffers verifier"
        raise AssertionError(f"expected {vector['error']}, got {outcome}")
    return f"{outcome[0]}"


def run(schema, folder: Path, report) -> None:
    """Reports one line for each vector."""
    for part, case in (("messages", _positive), ("malformed", _malformed)):
        paths = sorted((folder / part).glob("*.json"))
        if not paths:
            report(f"vectors/{part}", "no files")
        for path in paths:
            for vector in json.loads(path.read_text(encoding="utf-8")):
                name = f"vectors/{part}/{path.stem}/{vector['name']}"
                try:
                    report(name, None, case(schema, vector))
                except Exception as error:
                    report(name, f"{type(error).__name__}: {error}")
