"use strict";

/** What lies in the storage, and what needs somebody; `oddities` are counts of odd sessions, null without tables. */
function drawStorage(facts, oddities) {
  const tables = [
    { title: "Table", cell: (row) => row.table },
    { title: "rows", number: true, cell: (row) => format.count(row.rows) },
    { title: "files", number: true, cell: (row) => format.count(row.files) },
    { title: "size", number: true, cell: (row) => format.bytes(row.bytes) },
  ];
  const archivers = [
    { title: "Archiver", cell: (row) => el("code", { title: row.archiver }, row.archiver.slice(0, 8)) },
    { title: "segments", number: true, cell: (row) => format.count(row.segments) },
    { title: "size", number: true, cell: (row) => format.bytes(row.bytes) },
    { title: "in tables", number: true, cell: (row) => `${format.count(row.consumed)} of ${format.count(row.last)}` },
    { title: "missing", number: true, cell: (row) => format.count(row.missing) },
  ];
  byId("health-tables").replaceChildren(...table("Tables", tables, facts.tables, { empty: "No tables yet." }));
  byId("health-archive").replaceChildren(...table("Archive", archivers, facts.archive, { limit: 12, empty: "No archiver has registered yet." }));
  byId("findings").replaceChildren(...findings(facts, oddities).map(([kind, text]) => el("li", { class: kind }, text)));
}

/** Sentences about what is right and what needs somebody, the latter first. */
function findings(facts, oddities) {
  const found = [];
  for (const { archiver, gaps, missing, voids } of facts.archive) {
    const runs = gaps.map(([a, b]) => (a === b ? `${a}` : `${a} to ${b}`)).join(", ");
    if (missing) found.push(["bad", `Archiver ${archiver.slice(0, 8)}: segment ${runs} of its sequence is missing; the tables stop before it.`]);
    if (voids.length) found.push(["note", `Archiver ${archiver.slice(0, 8)}: the loss of segment ${voids.join(", ")} was accepted.`]);
  }
  const waiting = facts.archive.reduce((sum, a) => sum + a.waiting, 0);
  if (waiting) found.push(["note", `${format.plural(waiting, "segment waits", "segments wait")} for the next run of sessionlake compact.`]);
  if (oddities) {
    const { tz_assumed: zones, feedback_mismatch: mismatches } = oddities;
    if (zones) found.push(["note", `${format.plural(zones, "session has", "sessions have")} times without a zone; one was assumed.`]);
    if (mismatches) found.push(["note", `${format.plural(mismatches, "session reports", "sessions report")} other feedback counts than its verdicts add up to; the recounted ones are shown.`]);
  }
  const isWhole = facts.archive.every((a) => a.missing === 0);
  if (isWhole && facts.archive.length) found.push(["good", `No gap: ${format.plural(facts.archive.reduce((s, a) => s + a.segments, 0), "segment", "segments")} of ${format.plural(facts.archive.length, "archiver", "archivers")} in unbroken sequence.`]);
  return found;
}
