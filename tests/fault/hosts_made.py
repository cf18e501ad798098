"""What lies below an output: ``python -m tests.fault.hosts_made OUT`` prints names and digests, gaps, and the hosts."""

from __future__ import annotations

import json
import sys

from gristmill.shards.audit import audit_below
from gristmill.shards.finding import find_below
from gristmill.shards.receipt import committed_shards, read_receipts


def main(out: str) -> None:
    audits = list(audit_below(out))
    hosts = {
        receipt.attempt["host"]
        for sealed in find_below(out).sealed
        for receipt in read_receipts(sealed.url, committed_shards(sealed.url))
        if receipt.attempt
    }
    gaps = [gap for audit in audits for gap in audit.gaps]
    made = sorted([audit.name, audit.digest] for audit in audits)
    print(json.dumps({"made": made, "gaps": gaps, "hosts": sorted(hosts)}))


if __name__ == "__main__":
    main(sys.argv[1])
