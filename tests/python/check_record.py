#!/usr/bin/env python3
"""Judges a recorded replay from the trace, the record and the exports alone.

    check_record.py TRACE RECORD EXPORTS [--limit N]

TRACE is the trace that was played (JSON lines, gzip or plain), RECORD the folder `throng replay
--record` wrote, EXPORTS a folder with one `CHANNEL.jsonl` per channel, as `throng export` prints it.
Shares no code with throng. Exit code 0 if every promise holds, 1 if one does not.

A user who is kicked has the clients `USER.1` and `USER.2`. Each return is one more line for the client
and the channel in `joins.jsonl`: a stay. A stay that a kick ended is entitled up to the place of the
kick's fence in the exported log, and the user's messages lie in no gap between two stays.
"""
import argparse
import collections
import gzip
import hashlib
import json
import pathlib
import sys


def lines(path):
    opener = gzip.open if path.read_bytes()[:2] == b"\x1f\x8b" else open
    with opener(path, "rt", encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)


def body_hash(message):
    unit = f"{message['n']} ".encode()
    body = (unit * (message["len"] // len(unit) + 1))[: message["len"]]
    return hashlib.sha256(body).hexdigest()


def check(trace_path, record, exports, limit):
    problems = collections.Counter()
    trace = {}
    for message in lines(trace_path):
        if limit is not None and len(trace) >= limit:
            break
        trace[message["n"]] = message

    kicks = collections.defaultdict(list)
    if (record / "kicks.jsonl").exists():
        for kick in sorted(lines(record / "kicks.jsonl"), key=lambda kick: kick["version"]):
            kicks[kick["user"]].append(kick["version"])

    # The log: dense, in order, every message of the trace once, each sender's in its own order.
    log = collections.defaultdict(dict)
    places = collections.defaultdict(dict)
    for channel in sorted({message["ch"] for message in trace.values()}):
        stored, last_of, last_seq, last_ts = {}, {}, 0, 0
        for entry in lines(exports / f"{channel}.jsonl"):
            if entry["kind"] == "fence":
                if entry["seq"] != last_seq:
                    problems["fence is not behind the entry it names"] += 1
                places[channel][entry["fence"]] = entry["seq"]
                continue
            if entry["seq"] != last_seq + 1:
                problems["log is not dense"] += 1
            if entry["ts"] <= last_ts:
                problems["time stamps do not ascend"] += 1
            last_seq, last_ts = entry["seq"], entry["ts"]
            log[channel][entry["seq"]] = entry
            message = trace.get(entry["client_id"])
            if message is None or message["ch"] != channel or message["u"] != entry["sender"]:
                problems["entry is not of the trace"] += 1
                continue
            if entry["client_id"] in stored:
                problems["message is stored twice"] += 1
            stored[entry["client_id"]] = entry["seq"]
            if entry["hash"] != body_hash(message) or entry["len"] != message["len"]:
                problems["body differs"] += 1
            if last_of.get(entry["sender"], -1) > entry["client_id"]:
                problems["sender's order is broken"] += 1
            last_of[entry["sender"]] = entry["client_id"]
        expected = {n for n, message in trace.items() if message["ch"] == channel}
        problems["message is not stored"] += len(expected - stored.keys())

    # Acks: one for every message, at the place the log has it.
    acked = {}
    for send in lines(record / "sends.jsonl"):
        if send["client_id"] in acked:
            problems["message is acked twice"] += 1
        acked[send["client_id"]] = send
        entry = log[send["ch"]].get(send["seq"])
        if entry is None or entry["client_id"] != send["client_id"] or entry["ts"] != send["ts"] or entry["id"] != send["id"]:
            problems["ack is not in the log"] += 1
    problems["message is not acked"] += len(trace.keys() - acked.keys())

    # Stays: per client and channel where each begins, and where a fence ends it (None: never).
    stays = collections.defaultdict(list)
    for join in lines(record / "joins.jsonl"):
        stays[join["client"], join["ch"]].append([join["from_seq"], None])
    for user, versions in kicks.items():
        for channel in log:
            for client in (f"{user}.1", f"{user}.2"):
                for stay, version in zip(stays[client, channel], versions):
                    if version not in places[channel]:
                        problems["kick has no fence in the log"] += 1
                    stay[1] = places[channel].get(version, 0)

    # Fences: no message of a kicked user between the fence and the return.
    of_user = collections.defaultdict(list)
    for channel, entries in log.items():
        for entry in entries.values():
            of_user[entry["sender"], channel].append(entry["seq"])
    for user, versions in kicks.items():
        for channel in log:
            for ordinal, version in enumerate(versions):
                back = [stays[client, channel][ordinal + 1 : ordinal + 2] for client in (f"{user}.1", f"{user}.2")]
                back = min((stay[0][0] for stay in back if stay), default=len(log[channel]))
                place = places[channel].get(version, 0)
                gap = sum(place < seq <= back for seq in of_user[user, channel])
                problems["message is behind its sender's fence"] += gap

    # Deliveries: everything behind the join, once, in order, as the log has it.
    delivered = expected = cut = 0
    fields = ("ts", "id", "sender", "client_id", "len", "hash")
    for path in sorted((record / "clients").glob("*.jsonl")):
        mine = {channel: stays[path.stem, channel] for channel in log}
        at = {channel: 0 for channel in log}
        last = {channel: own[0][0] if own else -1 for channel, own in mine.items()}
        got = collections.Counter()

        def leave(channel, to):
            """Goes on to the stay that `to` lies in; what a stay lacks up to its fence is cut short."""
            nonlocal expected, delivered, cut
            own = mine[channel]
            while at[channel] + 1 < len(own) and (to is None or to > own[at[channel]][1]):
                due = max(own[at[channel]][1] - own[at[channel]][0], 0)
                cut += due - got[channel]
                expected += got[channel]
                delivered += got[channel]
                got[channel] = 0
                at[channel] += 1
                last[channel] = own[at[channel]][0]

        for line in lines(path):
            channel, entry = line["ch"], log[line["ch"]].get(line["seq"])
            leave(channel, line["seq"])
            if line["seq"] != last[channel] + 1:
                problems["delivery is lost, doubled, out of order, or behind a fence"] += 1
            if line["prev"] != last[channel]:
                problems["prev does not name the entry before"] += 1
            last[channel] = max(last[channel], line["seq"])
            if entry is None or any(line[field] != entry[field] for field in fields):
                problems["delivery differs from the log"] += 1
            got[channel] += 1
        for channel in log:
            leave(channel, None)
            begin, end = mine[channel][at[channel]] if mine[channel] else (len(log[channel]), None)
            due = max((len(log[channel]) if end is None else end) - begin, 0)
            expected += due
            delivered += got[channel]
            if got[channel] != due:
                problems["deliveries are missing or too many"] += abs(due - got[channel])

    problems = {problem: count for problem, count in problems.items() if count}
    print(json.dumps({"messages": len(trace), "acked": len(acked), "expected": expected,
                      "delivered": delivered, "kicks": sum(map(len, kicks.values())),
                      "cut_short": cut, "problems": problems}))
    return 1 if problems else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trace", type=pathlib.Path)
    parser.add_argument("record", type=pathlib.Path)
    parser.add_argument("exports", type=pathlib.Path)
    parser.add_argument("--limit", type=int)
    arguments = parser.parse_args()
    sys.exit(check(arguments.trace, arguments.record, arguments.exports, arguments.limit))


if __name__ == "__main__":
    main()
