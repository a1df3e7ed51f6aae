"""Cases against a running cluster: what SPEC.md promises a client, and how an edge refuses."""

import asyncio
import json
import os
from pathlib import Path

from changes import changes
from client import LIVE, PATIENCE, connected, make_token
from framing import encode_frame, encode_message
from session_parts import delivered, expect_done, expect_error, founded, message, same, sent, subscribed_to


class Cluster:
    """cluster.json, and names nobody else uses."""

    def __init__(self, schema, folder: Path):
        self.schema = schema
        self.file = json.loads((folder / "cluster.json").read_text(encoding="utf-8"))
        ca = Path(self.file["ca_cert"])
        self.ca = str(ca if ca.is_absolute() else folder / ca)
        self.run = os.urandom(6).hex()
        self.group = f"conformance-{self.run}"
        self.channel = "general"

    @property
    def place(self):
        return {"group": self.group, "channel": self.channel}

    def token(self, user: str, **change) -> str:
        fields = {"app": self.file["app_id"], "user": user, "secret": self.file["app_secret"], **change}
        return make_token(**fields)

    def edge(self, number: int = 0) -> str:
        edges = self.file["edges"]
        return edges[number % len(edges)]

    def connect(self, number: int = 0, **change):
        return connected(self.schema, self.edge(number), self.ca, **change)

    async def welcomed(self, client, user: str):
        name, fields = await client.open(self.token(user))
        assert name == "Welcome", f"{name} {fields}"
        same(fields["user"], user)
        return fields

    async def refused(self, act, code: int, number: int = 0):
        """Connects, acts, expects Error{request 0, code} and the same code at the close."""
        async with self.connect(number) as client:
            await act(client)
            _, _, fields = await client.expect(lambda _, name, fields: name == "Error")
            same((fields["request"], fields["code"]), ("0", code))
            same(await client.close_code(), code)


async def sound_path(cluster, case):
    """Everything a first client does, in one connection kept open for all other cases."""
    client = await case.enter(cluster.connect())
    welcome = await case("hello, authenticate, welcome", cluster.welcomed(client, "ann"))
    await case("create group", expect_done(client, "CreateGroup", group=cluster.group))
    await case("create group again by its creator", expect_done(client, "CreateGroup", group=cluster.group))
    await case("create channel", expect_done(client, "CreateChannel", **cluster.place))
    await case("create channel again", expect_done(client, "CreateChannel", **cluster.place))
    subscribed = await case("subscribe at the head", subscribe_at_head(cluster, client))
    ack = await case("send is acked and delivered", send_and_deliver(cluster, client, welcome, subscribed))
    await case("a repeat has the first answer", repeat(cluster, client, welcome, ack))
    await case("another body under the same key is refused", conflict(cluster, client, welcome))
    await case("history and sync return the message", pages(cluster, client, ack))
    await case("a client ack has no answer", client_ack(client, ack))
    return client, welcome, ack


async def subscribe_at_head(cluster, client):
    answer, fields = await client.retried("Subscribe", epoch=0, **cluster.place)
    same(answer, "Subscribed")
    same((fields["group"], fields["channel_name"]), (cluster.group, cluster.channel))
    same((fields["start"], fields["seq"], fields["head"]), ("Head", "0", "0"))
    return fields


async def send_and_deliver(cluster, client, welcome, subscribed):
    body = "héllo, wörld ☕".encode()
    answer, ack = await client.retried("Send", **cluster.place, **message(welcome, "7001", body))
    same(answer, "Ack")
    same((ack["seq"], ack["repeat"], ack["channel"]), ("1", False, subscribed["channel"]))
    fields = await delivered(client, ack["channel"], "1")
    same((fields["prev"], fields["epoch"]), (subscribed["seq"], ack["epoch"]))
    entry = fields["entries"][0]
    same((entry["kind"], entry["sender"], entry["client_message_id"]), (1, "ann", "7001"))
    same((entry["body"], entry["ts"]), (body.hex(), ack["ts"]))
    return {**ack, "body": body.hex()}


async def repeat(cluster, client, welcome, ack):
    body = bytes.fromhex(ack["body"])
    answer, again = await client.retried("Send", **cluster.place, **message(welcome, "7001", body))
    same((answer, again["seq"], again["ts"], again["repeat"]), ("Ack", ack["seq"], ack["ts"], True))


async def conflict(cluster, client, welcome):
    await expect_error(client, 401, "Send", **cluster.place, **message(welcome, "7001", b"something else"))


async def pages(cluster, client, ack):
    asked = [
        ("History", {"anchor": "0", "direction": "Before", "limit": 10}),
        ("History", {"anchor": "0", "direction": "After", "limit": 10}),
        ("Sync", {"epoch": ack["epoch"], "seq": "0"}),
    ]
    for name, fields in asked:
        answer, page = await client.retried(name, **cluster.place, **fields)
        same((answer, page["channel"], page["epoch"]), ("Page", ack["channel"], ack["epoch"]))
        same((page["prev"], page["head"], [entry["seq"] for entry in page["entries"]]), ("0", "1", ["1"]))
        same(page["entries"][0]["body"], ack["body"])
    answer, page = await client.retried("Sync", **cluster.place, epoch=ack["epoch"], seq="1")
    same((answer, page["entries"], page["head"]), ("Page", [], "1"))


async def client_ack(client, ack):
    client.post("ClientAck", channel=ack["channel"], epoch=ack["epoch"], seq=ack["seq"])
    client.post("ClientAck", channel="12345", epoch=1, seq="99")
    await client.ping()
    assert not [kept for kept in client.waiting if kept[0] == 0], f"answered with {client.waiting}"


async def another_user(cluster, case, ann, welcome):
    """A member of nothing becomes one, and ceases to be one."""
    client = await case.enter(cluster.connect(1))
    await case("a second user, on another edge", cluster.welcomed(client, "bob"))
    hello = message(welcome, "1", b"hello from bob")
    await not_a_member(cluster, case, client, hello)
    await case("unknown group", unknown_group(cluster, client, hello))
    await case("join", expect_done(client, "Join", group=cluster.group))
    await case("join again", expect_done(client, "Join", group=cluster.group))
    await case("unknown channel", unknown_channel(cluster, client, hello))
    await case("bob's message reaches ann across edges", across(cluster, client, ann, hello))
    await case("resume behind a position on another edge", resume(cluster, client))
    await case("a subscription that is none", not_subscribed(client))
    await case("leave", leave(cluster, client, hello))


async def not_a_member(cluster, case, client, hello):
    asked = [
        ("Send", hello),
        ("Subscribe", {}),
        ("Sync", {}),
        ("History", {}),
        ("CreateChannel", {"channel": "not-mine"}),
    ]
    for name, fields in asked:
        await case(f"not a member: {name}", expect_error(client, 302, name, **{**cluster.place, **fields}))
    await case("another creator", another_creator(cluster, client))


async def another_creator(cluster, client):
    await expect_error(client, 304, "CreateGroup", group=cluster.group)


async def unknown_group(cluster, client, hello):
    nowhere = {"group": "nowhere-" + cluster.run}
    await expect_error(client, 300, "Send", channel="c", **nowhere, **hello)
    await expect_error(client, 300, "Subscribe", channel="c", **nowhere)
    for name in ("Join", "Leave"):
        await expect_error(client, 300, name, **nowhere)


async def unknown_channel(cluster, client, hello):
    place = {"group": cluster.group, "channel": "no-such"}
    for name, fields in (("Send", hello), ("Subscribe", {}), ("Sync", {}), ("History", {})):
        await expect_error(client, 301, name, **place, **fields)


async def leave(cluster, client, hello):
    answer, subscribed = await client.retried("Subscribe", **cluster.place)
    same(answer, "Subscribed")
    await expect_done(client, "Leave", group=cluster.group)
    await expect_done(client, "Leave", group=cluster.group)
    await expect_error(client, 302, "Send", **cluster.place, **{**hello, "client_message_id": "2"})
    await expect_error(client, 306, "Unsubscribe", channel=subscribed["channel"])


async def not_subscribed(client):
    await expect_error(client, 306, "Unsubscribe", channel="99")


async def across(cluster, bob, ann, hello):
    answer, ack = await bob.retried("Send", **cluster.place, **hello)
    same((answer, ack["seq"]), ("Ack", "2"))
    fields = await delivered(ann, ack["channel"], "2")
    same((fields["prev"], fields["entries"][0]["sender"]), ("1", "bob"))


async def resume(cluster, bob):
    bob.request += 1
    request = str(bob.request)
    places = [{**cluster.place, "epoch": 1, "seq": "1"}, {"group": cluster.group, "channel": "no-such", "epoch": 1}]
    bob.post("Resume", request=request, places=places)
    answers = []
    while not answers or answers[-1][0] != "Done":
        _, name, fields = await bob.expect(lambda stream, _, fields: stream == 0 and fields.get("request") == request)
        answers.append((name, fields))
    same(sorted(name for name, _ in answers), ["Done", "Error", "Subscribed"])
    subscribed = next(fields for name, fields in answers if name == "Subscribed")
    same((subscribed["start"], subscribed["seq"]), ("Resumed", "1"))
    fields = await delivered(bob, subscribed["channel"], "2")
    same(fields["prev"], "1")
    await expect_done(bob, "Unsubscribe", channel=subscribed["channel"])
    await expect_error(bob, 306, "Unsubscribe", channel=subscribed["channel"])


async def rights(cluster, case, ann, welcome):
    """A member is muted, kicked and readmitted, in a group of its own."""
    group = "rights-" + cluster.run
    place = {"group": group, "channel": "general"}
    client = await case.enter(cluster.connect(1))
    await case("a user whose rights change", cluster.welcomed(client, "cid"))
    await case("a group for it", founded(ann, client, place))
    subscribed = await case("the user subscribes", subscribed_to(client, place))
    await case("others may not kick or mute", may_not_kick(client, group))
    await case("mute", mute(ann, client, place, welcome))
    await case("unmute", unmute(ann, client, place, welcome))
    await case("kick", kick(ann, client, place, welcome, subscribed))
    await case("after a kick", after_a_kick(ann, client, place, welcome))
    await case("joining again begins behind the fence", readmitted(client, place))
    await case("by time stamp as by position", by_time_stamp(ann, place))
    await case("a position and a time stamp", position_and_time_stamp(ann, place))


async def fenced(client, name, **fields):
    answer, got = await client.retried(name, **fields)
    assert answer == "Fenced", f"{answer} {got}"
    same((got["pending"], got["more"]), ([], 0))
    return got


async def may_not_kick(client, group):
    await expect_error(client, 303, "Kick", group=group, user="ann")
    await expect_error(client, 303, "Mute", group=group, user="ann", until_ms="1")
    await expect_error(client, 300, "Kick", group=group + "-not", user="ann")


async def mute(ann, client, place, welcome):
    until_ms = str(int(welcome["server_time_ms"]) + 3_600_000)
    await fenced(ann, "Mute", group=place["group"], user="cid", until_ms=until_ms)
    await expect_error(client, 307, "Send", **place, **message(welcome, "1", b"hush"))
    ack = await sent(ann, place, welcome, "1")
    await delivered(client, ack["channel"], ack["seq"])


async def unmute(ann, client, place, welcome):
    await fenced(ann, "Mute", group=place["group"], user="cid", until_ms="0")
    ack = await sent(client, place, welcome, "2")
    await delivered(client, ack["channel"], ack["seq"])


async def kick(ann, client, place, welcome, subscribed):
    before = await sent(ann, place, welcome, "3")
    first = await fenced(ann, "Kick", group=place["group"], user="cid")
    again = await fenced(ann, "Kick", group=place["group"], user="cid")
    same(again["version"], first["version"])
    await sent(ann, place, welcome, "4")
    await delivered(client, before["channel"], before["seq"])
    stream, _, ended = await client.expect(lambda _, name, fields: name == "Ended")
    same((stream, ended["request"], ended["code"]), (LIVE, subscribed["request"], 302))
    same((ended["channel"], ended["epoch"], ended["seq"]), (before["channel"], before["epoch"], before["seq"]))


async def after_a_kick(ann, client, place, welcome):
    await expect_error(client, 302, "Send", **place, **message(welcome, "5", b"too late"))
    for name, fields in (("Subscribe", {}), ("Sync", {}), ("History", {})):
        await expect_error(client, 302, name, **place, **fields)
    await expect_error(ann, 302, "Kick", group=place["group"], user="nobody-" + place["group"])
    await client.ping()
    late = [fields for _, name, fields in client.waiting if name == "Deliver"]
    assert not [one for one in late if one["entries"][-1]["client_message_id"] == "4"], f"behind the fence: {late}"


async def readmitted(client, place):
    await expect_done(client, "Join", group=place["group"])
    early = await subscribed_to(client, place, epoch=1, seq="1")
    same((early["start"], early["seq"]), ("FullFence", early["head"]))


async def by_time_stamp(ann, place):
    answer, whole = await ann.retried("History", **place, anchor="0", direction="After")
    same(answer, "Page")
    stamps = [(int(entry["seq"]), int(entry["ts"])) for entry in whole["entries"]]
    for seq, ts in stamps:
        for by_ts, by_seq in (
            (("Sync", {"ts": str(ts)}), ("Sync", {"epoch": whole["epoch"], "seq": str(seq)})),
            (
                ("History", {"ts": str(ts), "direction": "Before"}),
                ("History", {"anchor": str(seq), "direction": "Before"}),
            ),
        ):
            pages = []
            for name, fields in (by_ts, by_seq):
                answer, page = await ann.retried(name, **place, **fields)
                same(answer, "Page")
                pages.append((page["head"], page["entries"]))
            same(pages[0], pages[1])
        at = await subscribed_to(ann, place, ts=str(ts))
        same((at["seq"], at["ts"], at["start"]), (str(seq), str(ts), "Resumed"))
    ahead = await subscribed_to(ann, place, ts=str(stamps[-1][1] + 1))
    same((ahead["seq"], ahead["start"]), (str(stamps[-1][0]), "FullAhead"))


async def position_and_time_stamp(ann, place):
    await expect_error(ann, 105, "Subscribe", **place, epoch=1, seq="1", ts="1")
    await expect_error(ann, 105, "Sync", **place, epoch=1, ts="1")
    await expect_error(ann, 105, "History", **place, anchor="1", ts="1")


async def refused_requests(cluster, case, client, welcome):
    """Bad requests that leave the connection open."""
    large = message(welcome, "9", b"x" * 131_073)
    await case("a body over the limit", expect_error(client, 400, "Send", **cluster.place, **large))
    largest = message(welcome, "10", b"x" * 131_072)
    await case("the largest body", largest_body(cluster, client, largest))
    await case("an empty name", expect_error(client, 105, "Join", group=""))
    await case("a name over the limit", expect_error(client, 105, "Join", group="x" * 65))
    await case("a limit over the limit", expect_error(client, 105, "History", **cluster.place, limit=301))
    await case("request 0", request_0(client, cluster))
    ancient = {**message(welcome, "11", b"late"), "first_attempt_ms": "1"}
    await case("a retry from long ago", expect_error(client, 402, "Send", **cluster.place, **ancient))
    await case("an unknown frame below 128 is skipped", skipped(client))
    await case("a frame in single bytes", in_pieces(client))
    await case("frames elsewhere than on the control stream", frames_elsewhere(client))


async def largest_body(cluster, client, fields):
    answer, ack = await client.retried("Send", **cluster.place, **fields)
    same(answer, "Ack")
    got = await delivered(client, ack["channel"], ack["seq"])
    same(len(got["entries"][-1]["body"]), 2 * 131_072)


async def request_0(client, cluster):
    client.post("Join", request="0", group=cluster.group)
    _, _, fields = await client.expect(lambda _, name, fields: name == "Error")
    same((fields["request"], fields["code"]), ("0", 105))
    await client.ping()


async def skipped(client):
    client.write(encode_frame(100, b"of a later version"))
    await client.ping()


async def in_pieces(client):
    for byte in encode_message(client.schema, "Ping", {"nonce": "424242"}):
        client.write(bytes([byte]))
    await client.expect(lambda _, name, fields: name == "Pong" and fields["nonce"] == "424242")


async def frames_elsewhere(client):
    """An edge reads no other stream of a client, and goes on with the control stream."""
    client.write_elsewhere(encode_message(client.schema, "Ping", {"nonce": "987654321"}))
    for _ in range(3):
        await client.ping()
    assert not any(fields.get("nonce") == "987654321" for _, _, fields in client.waiting), "it was answered"


async def refused_connections(cluster, case):
    """What ends a connection, and with which code."""
    await refused_tokens(cluster, case)
    await refused_frames(cluster, case)
    await case("another ALPN", other_alpn(cluster))


async def refused_tokens(cluster, case):
    user = "eve"

    def opened(token):
        async def act(client):
            await client.hello()
            client.post("Authenticate", token=token, device="python")

        return act

    tokens = [
        ("a token under another secret", cluster.token(user, secret="0" * 64), 200),
        ("a token of an unknown key", cluster.token(user, kid="no-such-key"), 200),
        ("a token that names no algorithm", cluster.token(user, alg="none"), 200),
        ("no token at all", "not a token", 200),
        ("a token that is good for 25 hours", cluster.token(user, lifetime=25 * 3600), 200),
        ("an expired token", cluster.token(user, lifetime=-3600), 201),
        ("a token of another app", cluster.token(user, app="no-such-app"), 202),
    ]
    for name, token, code in tokens:
        await case(name, cluster.refused(opened(token), code))


async def refused_frames(cluster, case):
    def raw(data, end=False):
        async def act(client):
            await client.hello()
            client.write(data, end)

        return act

    frames = [
        ("a length of four bytes", raw(b"\xff\xff\xff\x01\x14"), 100),
        ("a payload that is no table", raw(encode_frame(3, b"this is no table")), 100),
        ("a stream that ends inside a frame", raw(b"\x10\x14", end=True), 100),
        ("an oversized frame, by its header", raw(b"\x81\x80\x0c\x0a"), 101),
        ("an unknown frame from 128", raw(encode_frame(200, b"")), 103),
        ("a request before welcome", raw(encode_message(cluster.schema, "Join", {"request": "1", "group": "g"})), 102),
        ("a second hello", raw(encode_message(cluster.schema, "Hello", {"versions": [1]})), 102),
        ("a frame only edges send", raw(encode_message(cluster.schema, "Done", {"request": "1"})), 102),
    ]
    for name, act, code in frames:
        await case(name, cluster.refused(act, code))

    async def ping_first(client):
        client.post("Ping", nonce="1")

    async def future(client):
        client.post("Hello", versions=[77], client="from the future")

    async def nothing(client):
        await client.hello()

    await case("a ping before hello", cluster.refused(ping_first, 102))
    await case("silence instead of authenticate", cluster.refused(nothing, 107))
    await case("no version in common", cluster.refused(future, 104))


async def other_alpn(cluster):
    try:
        async with asyncio.timeout(PATIENCE), cluster.connect(alpn="throng/0"):
            pass
    except ConnectionError:
        return
    raise AssertionError("the handshake was completed")


class Case:
    """Runs one case and reports it; a failed one lets those that do not need it go on."""

    def __init__(self, report, stack):
        self.report = report
        self.stack = stack

    async def enter(self, manager):
        return await self.stack.enter_async_context(manager)

    async def __call__(self, name, doing):
        try:
            result = await doing
        except (Exception, asyncio.CancelledError) as error:
            self.report(f"cluster/{name}", f"{type(error).__name__}: {error}")
            return None
        self.report(f"cluster/{name}", None)
        return result


async def run(schema, folder: Path, report) -> None:
    """All cases."""
    from contextlib import AsyncExitStack

    cluster = Cluster(schema, folder)
    async with AsyncExitStack() as stack:
        case = Case(report, stack)
        try:
            ann, welcome, ack = await sound_path(cluster, case)
            if None in (welcome, ack):
                raise AssertionError("the cases behind the first send need it")
            await another_user(cluster, case, ann, welcome)
            await rights(cluster, case, ann, welcome)
            await changes(cluster, case, ann, welcome)
            await refused_requests(cluster, case, ann, welcome)
            await refused_connections(cluster, case)
            await case("the first client is unaffected by all of it", ann.ping())
        except Exception as error:
            report("cluster", f"{type(error).__name__}: {error}")
