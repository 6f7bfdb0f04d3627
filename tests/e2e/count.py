"""Counts sessions, messages, interactions and verdicts straight from the file: ten lines that share nothing with the product."""

import collections
import gzip
import json
import sys

counts = collections.Counter()
for line in gzip.open(sys.argv[1]):
    session = json.loads(line)
    counts["sessions"] += 1
    counts["messages"] += len(session["chat_history"])
    counts["interactions"] += len(session["interactions"])
    counts.update(
        i["feedback"] for i in session["interactions"] if i["feedback"] in ("correct", "incorrect", "partial")
    )
print(json.dumps(counts))
