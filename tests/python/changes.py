"""Cases of SPEC.md sections 5.2 and 5.3: messages that are modified, recalled, deleted and expanded."""

from session_parts import delivered, expect_error, founded, message, same, sent, subscribed_to

MODIFY, RECALL, DELETE, EXPAND = 2, 3, 4, 5
RECALLED, DELETED = 1, 2


class Channel:
    """A channel of a group of its own, of which ann is the creator and cid a member."""

    def __init__(self, ann, cid, place, welcome):
        self.ann, self.cid = ann, cid
        self.place, self.welcome = place, welcome
        self.keys = 100

    def write(self, target, kind, **fields):
        self.keys += 1
        stamped = message(self.welcome, str(self.keys), b"")
        del stamped["body"]
        return {**stamped, **self.place, "epoch": target["epoch"], "target": target["seq"], "kind": kind, **fields}

    async def changed(self, client, target, kind, **fields):
        answer, ack = await client.retried("Change", **self.write(target, kind, **fields))
        assert answer == "Ack", f"{answer} {ack}"
        return ack

    async def refused(self, client, code, target, kind, **fields):
        await expect_error(client, code, "Change", **self.write(target, kind, **fields))

    async def entry(self, seq):
        answer, page = await self.ann.retried(
            "History", **self.place, anchor=str(int(seq) - 1), direction="After", limit=1
        )
        same(answer, "Page")
        return page["entries"][0]


async def changes(cluster, case, ann, welcome):
    """A message of each kind of end, in a group of its own."""
    place = {"group": "changes-" + cluster.run, "channel": "general"}
    cid = await case.enter(cluster.connect(1))
    await case("a user who changes messages", cluster.welcomed(cid, "cid"))
    await case("a group for changes", founded(ann, cid, place))
    await case("the user follows it", subscribed_to(cid, place))
    channel = Channel(ann, cid, place, welcome)
    await case("modify", modify(channel))
    await case("who may change what", who_may(channel))
    await case("recall and delete", recall_and_delete(channel))
    await case("expand", expand(channel))
    await case("a large expansion", large_expansion(channel))
    await case("an expansion that is full", full(channel))
    await case("what cannot be changed", unknown_targets(channel))
    await case("a repeated change", repeated(channel))
    await case("changes since an entry", since(channel))


async def modify(channel):
    first = await sent(channel.cid, channel.place, channel.welcome, "1")
    ack = await channel.changed(channel.cid, first, MODIFY, body=b"better".hex())
    again = await channel.changed(channel.ann, first, MODIFY, body=b"best".hex())
    same((ack["before"], again["before"], again["repeat"]), ("0", ack["seq"], False))
    fields = await delivered(channel.cid, first["channel"], again["seq"])
    entry = fields["entries"][-1]
    same((entry["kind"], entry["target"], entry["version"]), (MODIFY, first["seq"], ack["seq"]))
    same((entry["body"], entry["sender"]), (b"best".hex(), "ann"))
    shown = await channel.entry(first["seq"])
    same((shown["kind"], shown["body"], shown["version"]), (1, b"best".hex(), again["seq"]))
    same((await channel.entry(ack["seq"]))["body"], b"best".hex())


async def who_may(channel):
    of_ann = await sent(channel.ann, channel.place, channel.welcome, "2")
    await channel.refused(channel.cid, 303, of_ann, MODIFY, body=b"mine".hex())
    await channel.refused(channel.cid, 303, of_ann, RECALL)
    of_cid = await sent(channel.cid, channel.place, channel.welcome, "3")
    await channel.refused(channel.cid, 303, of_cid, DELETE)
    await channel.changed(channel.cid, of_ann, EXPAND, keys=["like"], values=["1"])
    await channel.changed(channel.ann, of_cid, RECALL)


async def recall_and_delete(channel):
    first = await sent(channel.cid, channel.place, channel.welcome, "4")
    await channel.changed(channel.cid, first, MODIFY, body=b"a secret".hex())
    keyed = await channel.changed(channel.cid, first, EXPAND, keys=["k"], values=["a secret"])
    recalled = await channel.changed(channel.cid, first, RECALL)
    for seq in (first["seq"], keyed["seq"], recalled["seq"]):
        shown = await channel.entry(seq)
        same((shown["hole"], shown["body"], shown["keys"], shown["values"]), (RECALLED, "", [], []))
    await channel.refused(channel.cid, 404, first, MODIFY, body=b"again".hex())
    await channel.refused(channel.cid, 404, first, RECALL)
    await channel.refused(channel.cid, 404, first, EXPAND, keys=["k"], values=["v"])
    await channel.changed(channel.ann, first, DELETE)
    same((await channel.entry(first["seq"]))["hole"], DELETED)
    await channel.refused(channel.ann, 404, first, DELETE)


async def expand(channel):
    first = await sent(channel.ann, channel.place, channel.welcome, "5")
    await channel.changed(channel.ann, first, EXPAND, keys=["like", "ключ"], values=["1", "☕"])
    ack = await channel.changed(channel.cid, first, EXPAND, keys=["like"], values=["2"], removed=["ключ", "none"])
    shown = await channel.entry(first["seq"])
    same((shown["keys"], shown["values"], shown["version"]), (["like"], ["2"], ack["seq"]))
    entry = (await delivered(channel.cid, first["channel"], ack["seq"]))["entries"][-1]
    same((entry["keys"], entry["values"], entry["removed"]), (["like"], ["2"], ["ключ", "none"]))
    for wrong in (
        {},
        {"keys": [""], "values": ["1"]},
        {"keys": ["k" * 33], "values": ["1"]},
        {"keys": ["a\u0007"], "values": ["1"]},
        {"keys": ["a"], "values": ["v" * 4097]},
        {"keys": ["a"], "values": []},
        {"keys": ["a", "a"], "values": ["1", "2"]},
        {"keys": ["a"], "values": ["1"], "removed": ["a"]},
        {"removed": [str(n) for n in range(21)]},
    ):
        await channel.refused(channel.ann, 105, first, EXPAND, **wrong)


async def large_expansion(channel):
    first = await sent(channel.ann, channel.place, channel.welcome, "6")
    keys = [f"k{n:02}" for n in range(20)]
    ack = await channel.changed(channel.ann, first, EXPAND, keys=keys, values=["v" * 4096] * 20)
    shown = await channel.entry(first["seq"])
    same((shown["keys_elsewhere"], shown["keys"]), (True, []))
    at = {"epoch": first["epoch"], "seq": first["seq"]}
    found, after = [], ""
    while True:
        answer, page = await channel.cid.retried("ReadExpansion", **channel.place, **at, after=after)
        same((answer, page["version"], page["seq"]), ("Expansion", ack["seq"], first["seq"]))
        assert page["keys"], "a page has a key at least"
        found += page["keys"]
        after = found[-1]
        if not page["more"]:
            break
    same(found, keys)
    elsewhen = {"epoch": first["epoch"] + 1, "seq": first["seq"]}
    await expect_error(channel.cid, 403, "ReadExpansion", **channel.place, **elsewhen, after="")


async def full(channel):
    first = await sent(channel.ann, channel.place, channel.welcome, "7")
    for start in range(0, 300, 20):
        keys = [str(n) for n in range(start, start + 20)]
        await channel.changed(channel.ann, first, EXPAND, keys=keys, values=[""] * 20)
    await channel.refused(channel.cid, 405, first, EXPAND, keys=["one more"], values=[""])
    await channel.changed(channel.cid, first, EXPAND, keys=["one more"], values=[""], removed=["0"])
    same(len((await channel.entry(first["seq"]))["keys"]), 300)


async def unknown_targets(channel):
    first = await sent(channel.cid, channel.place, channel.welcome, "8")
    ack = await channel.changed(channel.cid, first, MODIFY, body=b"x".hex())
    epoch = first["epoch"]
    await channel.refused(channel.cid, 403, {"epoch": epoch, "seq": str(int(ack["seq"]) + 1)}, RECALL)
    await channel.refused(channel.cid, 403, {"epoch": epoch, "seq": ack["seq"]}, RECALL)
    await channel.refused(channel.cid, 403, {"epoch": epoch + 1, "seq": first["seq"]}, RECALL)
    await channel.refused(channel.cid, 105, {"epoch": epoch, "seq": "0"}, RECALL)
    await channel.refused(channel.cid, 105, first, 1)
    await channel.refused(channel.cid, 105, first, 6)


async def repeated(channel):
    first = await sent(channel.cid, channel.place, channel.welcome, "9")
    write = channel.write(first, RECALL)
    _, ack = await channel.cid.retried("Change", **write)
    answer, again = await channel.cid.retried("Change", **write)
    same((answer, again["seq"], again["ts"], again["repeat"]), ("Ack", ack["seq"], ack["ts"], True))
    other = {**write, "kind": MODIFY, "body": b"x".hex()}
    await expect_error(channel.cid, 401, "Change", **other)
    taken = message(channel.welcome, write["client_message_id"], b"a message")
    await expect_error(channel.cid, 401, "Send", **channel.place, **taken)


async def since(channel):
    first = await sent(channel.cid, channel.place, channel.welcome, "10")
    other = await sent(channel.cid, channel.place, channel.welcome, "11")
    await channel.changed(channel.cid, first, MODIFY, body=b"one".hex())
    last = await channel.changed(channel.cid, other, MODIFY, body=b"two".hex())
    rng = {"epoch": first["epoch"], "from": first["seq"], "to": last["seq"]}

    async def seqs(**fields):
        answer, page = await channel.cid.retried("Changes", **channel.place, **{**rng, **fields})
        same((answer, page["head"]), ("Page", last["seq"]))
        return [entry["seq"] for entry in page["entries"]]

    same(await seqs(since="0"), [first["seq"], other["seq"]])
    same(await seqs(since=str(int(last["seq"]) - 1)), [other["seq"]])
    same(await seqs(since=last["seq"]), [])
    same(await seqs(since="0", to=first["seq"]), [first["seq"]])
    far = str(int(first["seq"]) + 300)
    await expect_error(channel.cid, 105, "Changes", **channel.place, **{**rng, "since": "0", "to": far})
    elsewhen = {**rng, "since": "0", "epoch": first["epoch"] + 1}
    await expect_error(channel.cid, 403, "Changes", **channel.place, **elsewhen)
