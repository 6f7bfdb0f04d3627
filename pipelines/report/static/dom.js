"use strict";

const SVG = "http://www.w3.org/2000/svg";
const byId = (id) => document.getElementById(id);

/** An element; strings among the children become text nodes, never markup. */
function el(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** The same for SVG. */
function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

/** Text from outside: isolated, so that right-to-left characters in it cannot reorder what stands around it. */
const foreign = (text) => el("bdi", {}, text);

/**
 * A table. `columns` are {title, number, cell(row), className}; the first column heads its row.
 * More than `limit` rows wait behind a button. The roles are spelled out because a narrow page lays
 * rows out as grids, and browsers then forget that they were rows.
 */
function table(caption, columns, rows, { limit = Infinity, empty = "Nothing here for this selection." } = {}) {
  const heads = columns.map((c) => el("th", { scope: "col", role: "columnheader", class: cellClass(c) }, c.title));
  const body = el("tbody", { role: "rowgroup" });
  const add = (some) => body.append(...some.map((row) => el("tr", { role: "row" }, ...columns.map((c, i) => cell(c, i, row)))));
  add(rows.slice(0, limit));
  const parts = [
    el("table", { role: "table" }, el("caption", {}, caption), el("thead", { role: "rowgroup" }, el("tr", { role: "row" }, ...heads)), body),
  ];
  if (rows.length === 0) parts.push(el("p", { class: "empty" }, empty));
  if (rows.length > limit) {
    const more = el("button", { type: "button", class: "more" }, `Show all ${rows.length}`);
    more.addEventListener("click", () => {
      add(rows.slice(limit));
      more.remove();
    });
    parts.push(more);
  }
  return parts;
}

function cell(column, index, row) {
  const content = column.cell(row);
  const children = Array.isArray(content) ? content : [content];
  return index === 0 ? el("th", { scope: "row", role: "rowheader" }, ...children) : el("td", { role: "cell", class: cellClass(column) }, ...children);
}

const cellClass = (column) => [column.number ? "num" : "", column.className ?? ""].join(" ").trim() || null;

/** A rate with its interval on the line from 0 to 100 %; `reference` is marked by a thin line. */
function intervalPlot({ rate, low, high }, reference, kind) {
  const at = (share) => `${(share * 100).toFixed(2)}%`;
  return svg(
    "svg",
    { class: `interval ${kind}`, role: "img", "aria-label": `${format.percent(rate)}, interval ${format.interval({ low, high })}` },
    ...[0, 0.25, 0.5, 0.75, 1].map((x) => svg("line", { class: "tick", x1: at(x), x2: at(x), y1: "20%", y2: "80%" })),
    reference === null ? null : svg("line", { class: "reference", x1: at(reference), x2: at(reference), y1: "0", y2: "100%" }),
    svg("line", { class: "span", x1: at(low), x2: at(high), y1: "50%", y2: "50%" }),
    svg("line", { class: "end", x1: at(low), x2: at(low), y1: "30%", y2: "70%" }),
    svg("line", { class: "end", x1: at(high), x2: at(high), y1: "30%", y2: "70%" }),
    svg("circle", { cx: at(rate), cy: "50%", r: 4.5 }),
  );
}

/** The head of a column of interval plots: its scale. */
function shareScale() {
  const at = [["0", "start"], ["50", "middle"], ["100 %", "end"]];
  return svg(
    "svg", { class: "scale", role: "img", "aria-label": "interval, from 0 to 100 %" },
    ...at.map(([text, anchor], i) => svg("text", { x: `${i * 50}%`, y: "75%", "text-anchor": anchor }, text)),
  );
}

/** A bar of `share` of the cell's width, of one or several parts [share, class]. */
function bar(parts) {
  let x = 0;
  const rects = parts.map(([share, kind]) => {
    const rect = svg("rect", { class: kind, x: `${x * 100}%`, width: `${share * 100}%`, height: "100%" });
    x += share;
    return rect;
  });
  return svg("svg", { class: "bar", "aria-hidden": "true" }, ...rects);
}
