"use strict";

/** Bars over time, one plot for each figure; drawn anew whenever the numbers, the width or the theme change. */
class BarChart {
  constructor(figure, title, unit, series) {
    Object.assign(this, { figure, title, unit, series, plot: null });
    this.readout = el("span", { class: "readout" });
    this.host = el("div", { class: "plot", role: "img" });
    const legend = series.length > 1 ? el("ul", { class: "legend" }, ...series.map((s) => el("li", { class: s.name }, s.label))) : null;
    figure.append(...[el("figcaption", {}, el("strong", {}, title), this.readout), legend, this.host].filter(Boolean));
  }

  /** `starts` are the periods' first days, `values` one array of counts for each series. */
  draw(starts, period, values) {
    const totals = starts.map((_, i) => values.reduce((sum, column) => sum + column[i], 0));
    const all = totals.reduce((a, b) => a + b, 0);
    const rest = () => `${format.count(all)} ${this.unit}`;
    this.readout.textContent = rest();
    this.host.setAttribute("aria-label", `${this.title}: ${rest()} in ${format.plural(starts.length, period, `${period}s`)}, most in one ${format.count(Math.max(0, ...totals))}`);
    this.plot?.destroy();
    this.plot = null;
    this.host.replaceChildren();
    if (all === 0) {
      this.host.append(el("p", { class: "empty" }, `No ${this.unit} in this selection.`));
      return;
    }
    const describe = (i) => (i === null ? rest() : this.describe(starts[i], period, values.map((column) => column[i])));
    this.plot = new uPlot(this.options(starts, period, describe), this.stack(starts, period, values), this.host);
  }

  describe(start, period, counts) {
    const parts = this.series.length > 1 ? this.series.map((s, i) => `${format.count(counts[i])} ${s.label.toLowerCase()}`) : [format.count(counts[0])];
    return `${calendar.label(start, period)}: ${parts.join(", ")}`;
  }

  /** Stacked: the highest sum is painted first and the lower ones over it. */
  stack(starts, period, values) {
    const middle = starts.map((start) => ((start + calendar.next(start, period)) / 2) * 86400);
    const sums = [];
    for (const column of values) {
      const below = sums.at(-1);
      sums.push(column.map((n, i) => n + (below ? below[i] : 0)));
    }
    return [middle, ...sums.reverse()];
  }

  options(starts, period, describe) {
    const style = getComputedStyle(document.documentElement);
    const colour = (name) => style.getPropertyValue(`--${name}`).trim();
    const font = `12px ${style.getPropertyValue("--font")}`;
    const axis = { stroke: colour("muted"), font, ticks: { show: false } };
    const bars = uPlot.paths.bars({ size: [0.84, 36] });
    return {
      width: this.host.clientWidth,
      height: 170,
      tzDate: (seconds) => uPlot.tzDate(new Date(seconds * 1000), "Etc/UTC"),
      legend: { show: false },
      cursor: { y: false, points: { show: false }, drag: { x: false, y: false } },
      scales: {
        x: { range: [starts[0] * 86400, calendar.next(starts.at(-1), period) * 86400] },
        y: { range: (_, __, max) => [0, Math.max(1, max * 1.05)] },
      },
      axes: [
        { ...axis, grid: { show: false }, space: 80, size: 28, values: (_, splits, __, ___, step) => splits.map((at) => tickLabel(at, step)) },
        { ...axis, grid: { stroke: colour("line"), width: 1 }, space: 26, size: 46, incrs: wholeSteps(), values: (_, splits) => splits.map(format.compact) },
      ],
      series: [{}, ...[...this.series].reverse().map((s) => ({ paths: bars, fill: colour(s.name), width: 0, points: { show: false } }))],
      hooks: { setCursor: [(plot) => { this.readout.textContent = describe(plot.cursor.idx ?? null); }] },
    };
  }
}

/** 1, 2, 5, 10, …: counts have no fractions. */
function wholeSteps() {
  return Array.from({ length: 15 }, (_, power) => [1, 2, 5].map((step) => step * 10 ** power)).flat();
}

function tickLabel(seconds, step) {
  const iso = new Date(seconds * 1000).toISOString();
  const [date] = iso.split("T");
  const days = step / 86400;
  if (days >= 360) return date.slice(0, -6);
  return days >= 28 ? date.slice(0, -3) : date.slice(-5);
}
