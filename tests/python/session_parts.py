"""What the cases against a running cluster share."""

from client import BULK, LIVE


def same(got, expected):
    assert got == expected, f"expected {expected}, got {got}"


async def expect_done(client, name, **fields):
    answer, got = await client.retried(name, **fields)
    assert answer == "Done", f"{answer} {got}"


async def expect_error(client, code, name, **fields):
    answer, got = await client.retried(name, **fields)
    same((answer, got.get("code")), ("Error", code))
    await client.ping()


def message(welcome, key, body: bytes):
    return {"client_message_id": key, "first_attempt_ms": welcome["server_time_ms"], "body": body.hex()}


async def delivered(client, channel, seq):
    stream, _, fields = await client.expect(
        lambda _, name, fields: name == "Deliver"
        and fields["channel"] == channel
        and any(entry["seq"] == seq for entry in fields["entries"])
    )
    assert stream in (LIVE, BULK), f"a deliver on stream kind {stream}"
    return fields


async def founded(ann, client, place):
    await expect_done(ann, "CreateGroup", group=place["group"])
    await expect_done(ann, "CreateChannel", **place)
    await expect_done(client, "Join", group=place["group"])


async def subscribed_to(client, place, **position):
    answer, fields = await client.retried("Subscribe", **place, **position)
    same(answer, "Subscribed")
    return fields


async def sent(client, place, welcome, key):
    answer, ack = await client.retried("Send", **place, **message(welcome, key, b"in time"))
    same(answer, "Ack")
    return ack
