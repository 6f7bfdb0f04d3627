"use strict";

const DIMENSIONS = ["language", "actor_kind", "action", "level"];
const PERIODS = ["day", "week", "month", "quarter", "year", "decade", "century"];
const DAY_MS = 86400000;
const Z95 = 1.959963984540054;

/** The share k of n with its 95 % Wilson interval; null without observations. */
function wilson(k, n) {
  if (n === 0) return null;
  const p = k / n;
  const z2 = (Z95 * Z95) / n;
  const centre = (p + z2 / 2) / (1 + z2);
  const half = (Z95 / (1 + z2)) * Math.sqrt((p * (1 - p)) / n + z2 / (4 * n));
  return { rate: p, low: k === 0 ? 0 : Math.max(0, centre - half), high: k === n ? 1 : Math.min(1, centre + half) };
}

/** Counts by period and codes, in columns of equal length. */
class Cube {
  constructor(columns) {
    this.columns = columns;
    this.length = columns.period.length;
  }

  /**
   * Sums of the named counts over the rows that pass the filter, by the value of `by`.
   * A filter on a dimension that the cube does not have selects nothing and drops nothing.
   */
  sums(counts, filter, by) {
    const keep = this.rows(filter);
    const result = new Map();
    for (const row of keep) {
      const key = by(this.columns, row);
      let sums = result.get(key);
      if (!sums) result.set(key, (sums = Object.fromEntries(counts.map((name) => [name, 0]))));
      for (const name of counts) sums[name] += this.columns[name][row];
    }
    return result;
  }

  total(counts, filter) {
    const zero = Object.fromEntries(counts.map((name) => [name, 0]));
    return this.sums(counts, filter, () => 0).get(0) ?? zero;
  }

  by(dimension, counts, filter) {
    return this.sums(counts, filter, (columns, row) => columns[dimension][row]);
  }

  rows(filter) {
    const tests = DIMENSIONS.filter((d) => filter[d] !== null && this.columns[d]).map((d) => [this.columns[d], filter[d]]);
    const { period } = this.columns;
    const kept = [];
    for (let row = 0; row < this.length; row += 1) {
      if (period[row] >= filter.first && period[row] <= filter.last && tests.every(([column, code]) => column[row] === code)) {
        kept.push(row);
      }
    }
    return kept;
  }
}

const dateOf = (day) => new Date(day * DAY_MS);
const dayOf = (year, month, date) => {
  const when = new Date(0);
  when.setUTCFullYear(year, month, date); // Date.UTC would read the years 0 to 99 as 1900 to 1999
  return Math.round(when.getTime() / DAY_MS);
};
const isoDay = (day) => dateOf(day).toISOString().slice(0, 10);

/** Calendar arithmetic on day numbers (days since 1970-01-01, UTC). */
const calendar = {
  monthsOf: { month: 1, quarter: 3, year: 12, decade: 120, century: 1200 },

  /** First day of the period that holds `day`. */
  start(day, period) {
    if (period === "day") return day;
    if (period === "week") return day - ((((day + 3) % 7) + 7) % 7); // 1970-01-01 was a Thursday
    const when = dateOf(day);
    const months = when.getUTCFullYear() * 12 + when.getUTCMonth();
    const step = calendar.monthsOf[period];
    return dayOf(0, Math.floor(months / step) * step, 1);
  },

  /** First day of the period after the one that starts at `start`. */
  next(start, period) {
    if (period === "day") return start + 1;
    if (period === "week") return start + 7;
    const when = dateOf(start);
    return dayOf(when.getUTCFullYear(), when.getUTCMonth() + calendar.monthsOf[period], 1);
  },

  /** Starts of all periods from the one that holds `first` to the one that holds `last`. */
  range(first, last, period) {
    const starts = [];
    for (let at = calendar.start(first, period); at <= last; at = calendar.next(at, period)) starts.push(at);
    return starts;
  },

  /** The shortest period, not shorter than `finest`, that cuts the days into at most `limit` pieces. */
  fitting(first, last, finest, limit) {
    const days = { day: 1, week: 7, month: 30, quarter: 91, year: 365, decade: 3652, century: 36524 };
    const usable = PERIODS.slice(PERIODS.indexOf(finest));
    return usable.find((period) => (last - first) / days[period] <= limit) ?? "century";
  },

  label(start, period) {
    const iso = isoDay(start);
    const year = dateOf(start).getUTCFullYear();
    switch (period) {
      case "day": return iso;
      case "week": return `week of ${iso}`;
      case "month": return iso.slice(0, -3);
      case "quarter": return `${year} Q${Math.floor(dateOf(start).getUTCMonth() / 3) + 1}`;
      case "year": return `${year}`;
      default: return `${year} to ${dateOf(calendar.next(start, period)).getUTCFullYear() - 1}`;
    }
  },
};

const format = {
  whole: new Intl.NumberFormat("en"),
  short: new Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 3 }),

  count: (n) => format.whole.format(n),
  compact: (n) => (Math.abs(n) < 10000 ? format.whole.format(n) : format.short.format(n)),
  percent: (share) => `${(share * 100).toFixed(1)} %`,
  interval: ({ low, high }) => `${(low * 100).toFixed(1)} – ${(high * 100).toFixed(1)} %`,
  plural: (n, one, many) => `${format.count(n)} ${n === 1 ? one : many}`,

  bytes(n) {
    const units = ["bytes", "KiB", "MiB", "GiB", "TiB", "PiB"];
    const power = n < 1024 ? 0 : Math.min(units.length - 1, Math.floor(Math.log2(n) / 10));
    return `${power ? (n / 1024 ** power).toFixed(1) : n} ${units[power]}`;
  },
};
