#!/usr/bin/env python3
"""An implementation of throng/1 from SPEC.md and the schema alone, against vectors and a cluster.

usage: conformance.py --vectors DIR [--cluster DIR]
DIR of --cluster is the folder of a running `throng up`. One line per case; exit 0 if all pass.
"""

import argparse
import asyncio
import sys
from pathlib import Path

import vectors
from schema import Schema


class Report:
    """Prints a line per case and counts."""

    def __init__(self):
        self.passed = 0
        self.failed = 0
        self.unjudged = 0

    def __call__(self, name, failure, detail=""):
        if failure is not None:
            self.failed += 1
            print(f"FAIL {name}: {failure}", flush=True)
        elif detail.startswith("not judged"):
            self.unjudged += 1
            print(f"  -  {name}: {detail}", flush=True)
        else:
            self.passed += 1
            print(f"  ok {name}" + (f": {detail}" if detail else ""), flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vectors", type=Path, help="folder of the vectors")
    parser.add_argument("--cluster", type=Path, help="folder of a running `throng up`")
    parser.add_argument("--schema", type=Path, help="client.fbs; by default the one beside the vectors' folder")
    arguments = parser.parse_args()
    if arguments.vectors is None and arguments.cluster is None:
        parser.error("give --vectors, --cluster or both")
    root = Path(__file__).resolve().parents[2] / "protocol"
    schema = Schema(arguments.schema or root / "schema" / "client.fbs")
    report = Report()
    if arguments.vectors is not None:
        vectors.run(schema, arguments.vectors, report)
    if arguments.cluster is not None:
        import session  # needs aioquic; vectors do not

        asyncio.run(session.run(schema, arguments.cluster, report))
    print(f"{report.passed} passed, {report.failed} failed, {report.unjudged} not judged")
    return 1 if report.failed or not report.passed else 0


if __name__ == "__main__":
    sys.exit(main())
