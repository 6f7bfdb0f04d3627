"use strict";

(() => {
  const facts = JSON.parse(byId("data").textContent);
  const numbers = facts.numbers;
  const VERDICTS = ["correct", "partial", "incorrect"];
  const ACTS = ["prune", "inject", "resurrect"];
  const SESSION_COUNTS = ["sessions", "messages", "user_messages", "assistant_messages", "with_graph", "tz_assumed", "feedback_mismatch"];
  const NODE_COUNTS = ["nodes", "ever_pruned", "returned", "injected", "injected_kept", "judged", "conflicts"];
  const WORDS = { language: "Language", actor_kind: "Actor kind", action: "Action", level: "Level", date: "date" };
  const ROWS_SHOWN = 12;

  const cubes = numbers ? Object.fromEntries(Object.entries(numbers.cubes).map(([name, columns]) => [name, new Cube(columns)])) : null;
  const periods = numbers ? Object.values(numbers.cubes).flatMap((columns) => columns.period) : [];
  const hasNumbers = periods.length > 0;
  const firstDay = periods.reduce((a, b) => Math.min(a, b), Infinity);
  const lastDay = hasNumbers ? calendar.next(periods.reduce((a, b) => Math.max(a, b), -Infinity), numbers.period) - 1 : null;
  const EVERYTHING = { first: -Infinity, last: Infinity, ...Object.fromEntries(DIMENSIONS.map((d) => [d, null])) };
  const form = byId("filters");
  const state = { measure: "correct" };
  let charts = {};

  // Names

  const languageNames = new Intl.DisplayNames(["en"], { type: "language", fallback: "none" });

  function plainName(dimension, code) {
    const { values, others } = numbers.names[dimension];
    if (code >= values.length) return `${others} more`;
    if (values[code] === "") return "(empty)";
    return values[code];
  }

  /** "German" for "de"; null for what is no language code. */
  function languageName(code) {
    if (code === "und") return "not stated";
    try {
      return languageNames.of(code) ?? null;
    } catch {
      return null;
    }
  }

  function nameCell(dimension, code) {
    const plain = plainName(dimension, code);
    const spoken = dimension === "language" ? languageName(plain) : null;
    return spoken ? [spoken, " ", el("span", { class: "code" }, foreign(plain))] : [foreign(plain)];
  }

  function optionText(dimension, code) {
    const plain = plainName(dimension, code);
    const spoken = dimension === "language" ? languageName(plain) : null;
    return spoken ? `${spoken} (${plain})` : plain;
  }

  // Filters

  function fillSelect(dimension) {
    const { values, others } = numbers.names[dimension];
    const codes = values.map((_, code) => code);
    if (others) codes.push(values.length);
    const labelled = codes.map((code) => [code, optionText(dimension, code)]);
    if (dimension === "language") labelled.sort((a, b) => a[1].localeCompare(b[1], "en"));
    form.elements[dimension].replaceChildren(
      el("option", { value: "" }, "All"),
      ...labelled.map(([code, text]) => el("option", { value: code }, text)),
    );
  }

  const dayIn = (input) => (input.value ? Math.round(Date.parse(`${input.value}T00:00:00Z`) / DAY_MS) : null);

  /** What the form says now; `first` and `last` are widened to whole periods. */
  function currentFilter() {
    const filter = { first: calendar.start(dayIn(form.elements.from) ?? firstDay, numbers.period), last: dayIn(form.elements.to) ?? lastDay };
    for (const dimension of DIMENSIONS) {
      const { value } = form.elements[dimension];
      filter[dimension] = value === "" ? null : Number(value);
    }
    return filter;
  }

  /** The view as a link: names, not codes, so that it means the same in a later report. */
  function remember() {
    const view = new URLSearchParams();
    for (const name of ["from", "to"]) {
      const { value, defaultValue } = form.elements[name];
      if (value && value !== defaultValue) view.set(name, value);
    }
    for (const dimension of DIMENSIONS) {
      const { value } = form.elements[dimension];
      if (value !== "") view.set(dimension, numbers.names[dimension].values[value] ?? "*");
    }
    if (state.measure !== "correct") view.set("rate", state.measure);
    try {
      window.history.replaceState(null, "", `#${view}`);
    } catch {
      return; // a page opened from an unusual place may not change its address; the view still works
    }
  }

  function recall() {
    const view = new URLSearchParams(window.location.hash.slice(1));
    for (const name of ["from", "to"]) {
      const field = form.elements[name];
      field.value = view.get(name) ?? field.defaultValue;
      if (!field.value) field.value = field.defaultValue;
    }
    for (const dimension of DIMENSIONS) {
      const { values } = numbers.names[dimension];
      const code = view.get(dimension) === "*" ? values.length : values.indexOf(view.get(dimension));
      form.elements[dimension].value = code < 0 ? "" : String(code);
      if (form.elements[dimension].selectedIndex < 0) form.elements[dimension].value = "";
    }
    state.measure = VERDICTS.includes(view.get("rate")) ? view.get("rate") : "correct";
    byId("measure").querySelector(`[value=${state.measure}]`).checked = true;
  }

  /** "all actor kinds" where a chosen filter has no meaning for what is counted. */
  function unaffected(filter, cube) {
    const words = DIMENSIONS.filter((d) => filter[d] !== null && !cubes[cube].columns[d]).map((d) => WORDS[d].toLowerCase());
    return words.length ? `of any ${words.join(" and ")}` : "";
  }

  // Sections

  function drawTiles(filter, totals) {
    const { sessions, verdicts, acts, nodes } = totals;
    const judged = VERDICTS.reduce((sum, v) => sum + verdicts[v], 0);
    const correct = wilson(verdicts.correct, judged);
    const tiles = [
      ["Sessions", format.compact(sessions.sessions), unaffected(filter, "sessions") || `${format.compact(sessions.with_graph)} with a graph`],
      ["Messages", format.compact(sessions.messages), unaffected(filter, "sessions") || `${format.compact(sessions.user_messages)} by users`],
      ["Verdicts", format.compact(judged), unaffected(filter, "verdicts") || `${format.compact(verdicts.incorrect)} incorrect`],
      ["Correct", correct ? format.percent(correct.rate) : "–", correct ? `95 %: ${format.interval(correct)}` : "no verdicts"],
      ["Nodes", format.compact(nodes.nodes), unaffected(filter, "nodes") || `${format.compact(nodes.judged)} judged`],
      ["Prunes", format.compact(acts.prune), unaffected(filter, "actions") || `${format.compact(nodes.ever_pruned)} nodes`],
      ["Injects", format.compact(acts.inject), unaffected(filter, "actions") || `${format.compact(nodes.injected)} nodes`],
      ["Resurrects", format.compact(acts.resurrect), unaffected(filter, "actions") || `${format.compact(nodes.returned)} nodes came back`],
    ];
    byId("tiles").replaceChildren(
      ...tiles.map(([name, value, note]) => el("div", {}, el("dt", {}, name), el("dd", {}, value, el("small", {}, note)))),
    );
  }

  function makeCharts() {
    const verdictSeries = VERDICTS.map((name) => ({ name, label: name[0].toUpperCase() + name.slice(1) }));
    charts = {
      sessions: new BarChart(byId("chart-sessions"), "Sessions", "sessions", [{ name: "plain", label: "Sessions" }]),
      messages: new BarChart(byId("chart-messages"), "Messages", "messages", [{ name: "user", label: "By users" }, { name: "plain", label: "By others" }]),
      verdicts: new BarChart(byId("chart-verdicts"), "Verdicts", "verdicts", verdictSeries),
    };
    for (const act of ACTS) {
      charts[act] = new BarChart(byId(`chart-${act}`), `${act[0].toUpperCase()}${act.slice(1)}s`, `${act}s`, [{ name: act, label: act }]);
    }
  }

  /** Sums by period, lined up with `starts`; periods without rows are zero. */
  function timeline(cube, counts, filter, starts, period) {
    const sums = cube.sums(counts, filter, (columns, row) => calendar.start(columns.period[row], period));
    return counts.map((name) => starts.map((start) => sums.get(start)?.[name] ?? 0));
  }

  function drawTime(filter) {
    const limit = Math.max(30, Math.round(byId("chart-sessions").clientWidth / 7));
    const [first, last] = [Math.max(filter.first, firstDay), Math.min(filter.last, lastDay)];
    const period = calendar.fitting(first, last, numbers.period, limit);
    const starts = first <= last ? calendar.range(first, last, period) : [];
    const [messages, users] = timeline(cubes.sessions, ["messages", "user_messages"], filter, starts, period);
    const [sessions] = timeline(cubes.sessions, ["sessions"], filter, starts, period);
    const verdicts = timeline(cubes.verdicts, VERDICTS, filter, starts, period);
    const acts = ACTS.map((act) => {
      const code = numbers.names.action.values.indexOf(act);
      const wanted = filter.action === null || filter.action === code;
      return wanted ? timeline(cubes.actions, ["n"], { ...filter, action: code }, starts, period)[0] : starts.map(() => 0);
    });
    charts.sessions.draw(starts, period, [sessions]);
    charts.messages.draw(starts, period, [users, messages.map((n, i) => n - users[i])]);
    charts.verdicts.draw(starts, period, verdicts);
    ACTS.forEach((act, i) => charts[act].draw(starts, period, [acts[i]]));
    byId("bins").textContent = starts.length ? `One bar is one ${period}.` : "";
    drawTimeTable(starts, period, { sessions, messages, verdicts, acts });
  }

  function drawTimeTable(starts, period, { sessions, messages, verdicts, acts }) {
    const count = (title, values) => ({ title, number: true, cell: (i) => format.count(values[i]) });
    const columns = [
      { title: period, cell: (i) => calendar.label(starts[i], period) },
      count("sessions", sessions), count("messages", messages),
      ...VERDICTS.map((v, i) => count(v, verdicts[i])),
      ...ACTS.map((act, i) => count(`${act}s`, acts[i])),
    ];
    byId("table-time").replaceChildren(...table("", columns, starts.map((_, i) => i)));
  }

  function drawSessions(filter, { sessions }) {
    const whole = sessions.sessions;
    const share = (n) => (whole ? n / whole : 0);
    const shareColumns = () => [
      { title: el("span", { class: "sr" }, "as a bar"), className: "plotcell", cell: (row) => bar([[share(row.n), "kept"]]) },
      { title: "sessions", number: true, cell: (row) => format.count(row.n) },
      { title: "share", number: true, cell: (row) => format.percent(share(row.n)) },
    ];
    const languages = [...cubes.sessions.by("language", ["sessions", "messages"], filter)]
      .map(([code, sums]) => ({ code, n: sums.sessions, messages: sums.messages }))
      .sort((a, b) => b.n - a.n || a.code - b.code);
    const byLanguage = [
      { title: "Language", cell: (row) => nameCell("language", row.code) },
      ...shareColumns(),
      { title: "messages", number: true, cell: (row) => format.count(row.messages) },
    ];
    const holding = [
      ["a reasoning graph", sessions.with_graph],
      ["times without a zone, one was assumed", sessions.tz_assumed],
      ["feedback counts that its verdicts contradict", sessions.feedback_mismatch],
    ].map(([name, n]) => ({ name, n }));
    const empty = "No sessions in this selection.";
    byId("sessions-language").replaceChildren(...table("By language", byLanguage, languages, { limit: ROWS_SHOWN, empty }));
    byId("sessions-holding").replaceChildren(
      ...table("Sessions with", [{ title: "What", cell: (row) => row.name }, ...shareColumns()], whole ? holding : [], { empty }),
    );
  }

  function rateRows(dimension, filter) {
    return [...cubes.verdicts.by(dimension, VERDICTS, filter)]
      .map(([code, sums]) => {
        const n = VERDICTS.reduce((sum, v) => sum + sums[v], 0);
        return { code, n, rate: wilson(sums[state.measure], n) };
      })
      .filter((row) => row.n > 0)
      .sort((a, b) => b.n - a.n || a.code - b.code);
  }

  function drawRates(filter, totals) {
    const n = VERDICTS.reduce((sum, v) => sum + totals.verdicts[v], 0);
    const overall = wilson(totals.verdicts[state.measure], n);
    byId("measure-word").textContent = state.measure;
    for (const dimension of DIMENSIONS) {
      const columns = [
        { title: WORDS[dimension], cell: (row) => nameCell(dimension, row.code) },
        { title: "n", number: true, cell: (row) => format.count(row.n) },
        { title: shareScale(), className: "plotcell", cell: (row) => intervalPlot(row.rate, overall.rate, state.measure) },
        { title: "rate", number: true, cell: (row) => rateText(row.rate) },
      ];
      byId(`rates-${dimension}`).replaceChildren(
        ...table(`By ${WORDS[dimension].toLowerCase()}`, columns, rateRows(dimension, filter), { limit: ROWS_SHOWN, empty: "No verdicts in this selection." }),
      );
    }
  }

  const rateText = (rate) => [el("span", { class: "rate" }, format.percent(rate.rate)), el("small", {}, format.interval(rate))];

  function drawActs(filter, totals) {
    const kinds = [...cubes.actions.sums(["n"], filter, (c, row) => c.actor_kind[row] * 1000 + c.action[row])]
      .map(([key, { n }]) => ({ kind: Math.floor(key / 1000), action: key % 1000, n }));
    const actions = new Map();
    for (const { kind, action, n } of kinds) {
      const row = actions.get(action) ?? { action, n: 0, kinds: new Map() };
      row.n += n;
      row.kinds.set(kind, (row.kinds.get(kind) ?? 0) + n);
      actions.set(action, row);
    }
    const used = [...new Set(kinds.map((k) => k.kind))].sort((a, b) => a - b);
    const columns = [
      { title: "Action", cell: (row) => nameCell("action", row.action) },
      { title: "all", number: true, cell: (row) => format.count(row.n) },
      ...used.map((kind) => ({ title: plainName("actor_kind", kind), number: true, cell: (row) => format.count(row.kinds.get(kind) ?? 0) })),
    ];
    const rows = [...actions.values()].sort((a, b) => b.n - a.n);
    byId("acts-by-kind").replaceChildren(...table("Actions by who acted", columns, rows, { limit: ROWS_SHOWN, empty: "No actions in this selection." }));
    drawNodes(totals.nodes);
  }

  function drawNodes(nodes) {
    const rows = [
      ["Nodes that were judged", nodes.judged, nodes.nodes],
      ["Judged nodes with conflicting verdicts", nodes.conflicts, nodes.judged],
      ["Nodes that were ever pruned", nodes.ever_pruned, nodes.nodes],
      ["Pruned nodes that came back", nodes.returned, nodes.ever_pruned],
      ["Injected nodes that stayed", nodes.injected_kept, nodes.injected],
    ].map(([name, k, n]) => ({ name, k, n, rate: wilson(k, n) }));
    const columns = [
      { title: "Share", cell: (row) => row.name },
      { title: "of", number: true, cell: (row) => format.count(row.n) },
      { title: shareScale(), className: "plotcell", cell: (row) => (row.rate ? intervalPlot(row.rate, null, "plain") : "–") },
      { title: "rate", number: true, cell: (row) => (row.rate ? rateText(row.rate) : "–") },
    ];
    byId("node-rates").replaceChildren(...table("What became of the nodes", columns, nodes.nodes ? rows : [], { empty: "No graph in this selection." }));
  }

  // The page as a whole

  function drawHead() {
    const parts = [];
    if (facts.lake) parts.push(`Lake version ${facts.lake.version}`);
    if (hasNumbers) parts.push(`sessions started ${isoDay(firstDay)} to ${isoDay(lastDay)}`, format.plural(numbers.users, "named user", "named users"));
    parts.push(`made ${facts.made.replace("T", " ")} UTC`);
    byId("facts").replaceChildren(...parts.flatMap((part, i) => [i ? " · " : "", el("span", {}, part)]));
    byId("bottom").textContent = `Counted from ${facts.storage}. This file is complete in itself: it holds counts only, no text of any conversation, and loads nothing.`;
  }

  function drawEmpty() {
    const text = facts.lake ? "The tables hold no session yet." : "There are no tables yet.";
    const advice = "Sessions come here once they have expired, were archived by sessionlake sweep, and put into the tables by sessionlake compact.";
    byId("main").prepend(el("section", { class: "nothing" }, el("h2", {}, text), el("p", { class: "lead" }, advice)));
  }

  function draw() {
    const filter = currentFilter();
    const acts = cubes.actions.by("action", ["n"], filter);
    const totals = {
      sessions: cubes.sessions.total(SESSION_COUNTS, filter),
      verdicts: cubes.verdicts.total(VERDICTS, filter),
      nodes: cubes.nodes.total(NODE_COUNTS, filter),
      acts: Object.fromEntries(ACTS.map((act) => [act, acts.get(numbers.names.action.values.indexOf(act))?.n ?? 0])),
    };
    drawTiles(filter, totals);
    drawTime(filter);
    drawSessions(filter, totals);
    drawRates(filter, totals);
    drawActs(filter, totals);
    const all = cubes.sessions.columns.sessions.reduce((a, b) => a + b, 0);
    const widened = numbers.period === "day" ? "" : `, in whole ${numbers.period}s`;
    byId("status").textContent = `${format.count(totals.sessions.sessions)} of ${format.plural(all, "session", "sessions")}${widened}`;
  }

  function startFilters() {
    DIMENSIONS.forEach(fillSelect);
    for (const [name, day] of [["from", firstDay], ["to", lastDay]]) {
      const field = form.elements[name];
      [field.min, field.max, field.defaultValue] = [isoDay(firstDay), isoDay(lastDay), isoDay(day)];
    }
    recall();
    const changed = () => {
      remember();
      draw();
    };
    form.addEventListener("change", changed);
    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("reset", () => setTimeout(changed)); // the fields are empty only after the event
    byId("measure").addEventListener("change", (event) => {
      state.measure = event.target.value;
      changed();
    });
    window.addEventListener("hashchange", () => {
      recall();
      draw();
    });
  }

  function onResize(action) {
    let width = window.innerWidth;
    let timer = 0;
    window.addEventListener("resize", () => {
      if (window.innerWidth === width) return; // a phone's address bar changes the height only
      width = window.innerWidth;
      clearTimeout(timer);
      timer = setTimeout(action, 150);
    });
  }

  drawHead();
  drawTraining(facts.training);
  drawStorage(facts, cubes ? cubes.sessions.total(["tz_assumed", "feedback_mismatch"], EVERYTHING) : null);
  if (hasNumbers) {
    form.hidden = false;
    document.querySelectorAll("[data-part=numbers]").forEach((section) => { section.hidden = false; });
    makeCharts();
    startFilters();
    draw();
    onResize(draw);
  } else {
    drawEmpty();
  }
  theme.start(byId("theme"), () => { if (hasNumbers) draw(); });
})();
