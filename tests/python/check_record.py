#!/usr/bin/env python3
"""Judges a recorded replay from the trace, the record and the exports alone.

    check_record.py TRACE RECORD EXPORTS [--limit N]

TRACE is the trace that was played (JSON lines, gzip or plain), RECORD the folder `throng replay
--record` wrote, EXPORTS a folder with one `CHANNEL.jsonl` per channel, as `throng export` prints it.
Shares no code with throng. Exit code 0 if every promise holds, 1 if one does not.
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

    # The log: dense, in order, every message of the trace once, each sender's in its own order.
    log = collections.defaultdict(dict)
    for channel in sorted({message["ch"] for message in trace.values()}):
        stored, last_of, last_seq, last_ts = {}, {}, 0, 0
        for entry in lines(exports / f"{channel}.jsonl"):
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

    # Deliveries: everything behind the join, once, in order, as the log has it.
    joins = {(join["client"], join["ch"]): join["from_seq"] for join in lines(record / "joins.jsonl")}
    delivered = expected = 0
    for path in sorted((record / "clients").glob("*.jsonl")):
        last = {channel: seq for (client, channel), seq in joins.items() if client == path.stem}
        got = collections.Counter()
        for line in lines(path):
            channel, entry = line["ch"], log[line["ch"]].get(line["seq"])
            if line["seq"] != last.get(channel, -1) + 1:
                problems["delivery is lost, doubled or out of order"] += 1
            if line["prev"] != last.get(channel, -1):
                problems["prev does not name the entry before"] += 1
            last[channel] = max(last.get(channel, 0), line["seq"])
            fields = ("ts", "id", "sender", "client_id", "len", "hash")
            if entry is None or any(line[field] != entry[field] for field in fields):
                problems["delivery differs from the log"] += 1
            got[channel] += 1
        for channel in log:
            due = len(log[channel]) - joins.get((path.stem, channel), 0)
            expected += due
            delivered += got[channel]
            if got[channel] != due:
                problems["deliveries are missing or too many"] += abs(due - got[channel])

    problems = {problem: count for problem, count in problems.items() if count}
    print(json.dumps({"messages": len(trace), "acked": len(acked), "expected": expected,
                      "delivered": delivered, "problems": problems}))
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
