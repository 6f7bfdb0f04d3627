"""Counts sessions, messages, interactions and verdicts straight from the file; shares nothing with the product."""

import collections
import gzip
import json
import sys
from pathlib import Path

counts = collections.Counter()
for line in gzip.decompress(Path(sys.argv[1]).read_bytes()).splitlines():
    session = json.loads(line)
    counts["sessions"] += 1
    counts["messages"] += len(session["chat_history"])
    counts["interactions"] += len(session["interactions"])
    counts.update(
        i["feedback"] for i in session["interactions"] if i["feedback"] in ("correct", "incorrect", "partial")
    )
print(json.dumps(counts))
