"use strict";

/** What the latest exports made of the sessions; the filters do not reach here. */
function drawTraining(sets) {
  byId("training").replaceChildren(...sets.map(trainingSet));
}

function trainingSet(set) {
  const heading = el("h3", {}, set.set, " ", el("span", { class: "note" }, `one row per ${set.row}`));
  if (!set.exported) {
    return el("article", { class: "set" }, heading, el("p", { class: "empty" }, "Not exported yet: ", el("code", {}, `sessionlake export ${set.set}`)));
  }
  const rows = Object.values(set.splits).reduce((sum, n) => sum + n, 0);
  const made = rows + set.rows_left_out;
  const splits = Object.entries(set.splits).map(([name, n]) => `${name} ${format.count(n)}`).join(" · ");
  const stages = [
    ["Sessions read", set.sessions_read, set.sessions_read],
    ["of them with rows", set.sessions_used, set.sessions_read],
    ["Rows made", made, made],
    ["Rows written", rows, made],
  ];
  const most = Math.max(1, ...set.left_out.map(([, , n]) => n));
  const funnel = [
    { title: "stage", cell: ([name]) => name },
    { title: el("span", { class: "sr" }, "as a bar"), className: "plotcell", cell: ([, n, whole]) => bar([[whole ? n / whole : 0, "kept"]]) },
    { title: "count", number: true, cell: ([, n, whole]) => [format.count(n), n < whole ? el("small", {}, format.percent(n / whole)) : null].filter(Boolean) },
  ];
  const reasons = [
    { title: "reason", cell: ([, reason]) => el("code", {}, foreign(reason)) },
    { title: el("span", { class: "sr" }, "as a bar"), className: "plotcell", cell: ([, , n]) => bar([[n / most, "rejected"]]) },
    { title: "what", cell: ([what]) => what },
    { title: "count", number: true, cell: ([, , n]) => format.count(n) },
  ];
  const redacted = set.redactions ? `, ${format.plural(set.redactions, "item", "items")} redacted` : "";
  return el(
    "article", { class: "set" }, heading,
    ...table("", funnel, stages),
    el("p", { class: "note" }, `${splits}${redacted}. Export ${set.version} of lake version ${set.table_version}, ${set.made} UTC.`),
    ...table("Why not more", reasons, set.left_out, { limit: 6, empty: "Nothing was left out." }),
  );
}
