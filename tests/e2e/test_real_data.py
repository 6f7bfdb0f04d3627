"""Real sessions from file to tables: nothing lost, nothing doubled, whatever is repeated."""

import gzip
import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.realdata

COUNTS = """
    select (select count(*) from sessions) as sessions, (select count(*) from messages) as messages,
           (select count(*) from interactions) as interactions,
           (select count(*) from feedback where label = 'correct') as correct,
           (select count(*) from feedback where label = 'incorrect') as incorrect,
           (select count(*) from feedback where label = 'partial') as partial
"""


def test_the_tables_hold_what_the_file_holds_also_the_second_time(sessionlake, real_sessions):
    script = Path(__file__).with_name("count.py")
    expected = json.loads(subprocess.check_output([sys.executable, script, real_sessions]))
    first = sessionlake.json("import", real_sessions)
    assert first["imported"] == expected["sessions"] == 6836
    version = sessionlake.json("compact")["lake_version"]
    assert sessionlake.rows(COUNTS) == [expected]
    again = sessionlake.json("import", real_sessions)
    assert (again["imported"], again["revised"], again["identical"]) == (0, 0, 6836)
    compacted = sessionlake.json("compact")
    assert (compacted["segments"], compacted["lake_version"]) == (0, version)
    assert sessionlake.rows(COUNTS) == [expected]


def test_every_odd_line_is_in_the_tables_or_a_named_reject(sessionlake, edge_cases):
    report = sessionlake.json("import", edge_cases, code=4)
    lines = gzip.decompress(edge_cases.read_bytes()).splitlines()
    assert report["records"] == len(lines) == 44
    reject_lines = Path(sessionlake.directory, report["rejects_file"]).read_text().splitlines()
    rejects = [json.loads(line) for line in reject_lines]
    assert len(rejects) == report["rejected"]
    assert all(r["rule"] and r["reason"] and 1 <= r["line"] <= 44 for r in rejects)
    sessionlake("compact")
    rejected = {r["line"] for r in rejects}
    expected = {json.loads(line)["session_id"] for n, line in enumerate(lines, 1) if n not in rejected}
    found = {row["session_id"] for row in sessionlake.rows("select session_id from sessions")}
    assert found == expected
    assert report["imported"] + report["revised"] + report["older"] + report["identical"] + len(rejects) == 44
