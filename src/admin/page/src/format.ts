// Formats numbers and times. Pure.

/** Formats a duration in a suitable unit. */
export function duration(ns: number): string {
  if (!Number.isFinite(ns) || ns < 0) return "-";
  if (ns === 0) return "0";
  if (ns < 1e6) return `${(ns / 1e3).toFixed(0)} us`;
  if (ns < 1e9) return `${(ns / 1e6).toFixed(ns < 1e7 ? 1 : 0)} ms`;
  if (ns < 120e9) return `${(ns / 1e9).toFixed(2)} s`;
  if (ns < 7200e9) return `${(ns / 60e9).toFixed(1)} min`;
  return `${(ns / 3600e9).toFixed(1)} h`;
}

/** Formats how long ago something happened, in seconds. */
export function age(seconds: number): string {
  if (!(seconds > 0)) return "0 s";
  if (seconds < 60) return `${seconds.toFixed(0)} s`;
  if (seconds < 3600) return `${(seconds / 60).toFixed(0)} min`;
  if (seconds < 48 * 3600) return `${(seconds / 3600).toFixed(1)} h`;
  return `${(seconds / 86400).toFixed(1)} d`;
}

/** Formats a count with thousands separators. */
export function count(value: number): string {
  return Math.round(value).toString().replace(/\B(?=(\d{3})+$)/g, ",");
}

/** Formats a count in few characters: 999, 12.3k, 4.5M. */
export function brief(value: number): string {
  if (value < 1e4) return count(value);
  if (value < 1e6) return `${(value / 1e3).toFixed(value < 1e5 ? 1 : 0)}k`;
  if (value < 1e9) return `${(value / 1e6).toFixed(1)}M`;
  return `${(value / 1e9).toFixed(1)}G`;
}

/** Formats a number of bytes. */
export function bytes(value: number): string {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) [value, unit] = [value / 1024, unit + 1];
  return `${unit === 0 ? value : value.toFixed(1)} ${units[unit]}`;
}

/** Formats dollars, with enough digits for a small sum. */
export function dollars(value: number | undefined): string {
  if (value === undefined) return "";
  if (value === 0) return "$0";
  if (value < 1e-6) return "<$0.000001";
  return `$${value < 0.01 ? value.toFixed(6) : value < 1 ? value.toFixed(4) : value.toFixed(2)}`;
}

const two = (value: number) => String(value).padStart(2, "0");

const MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/** Formats a time of day in the reader's time zone, with the date if it is not today, and the year if it is not the current one. */
export function clock(ms: number, now = Date.now()): string {
  const [at, today] = [new Date(ms), new Date(now)];
  const time = `${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`;
  if (at.toDateString() === today.toDateString()) return time;
  const year = at.getFullYear() === today.getFullYear() ? "" : ` ${at.getFullYear()}`;
  return `${MONTHS[at.getMonth()]} ${at.getDate()}${year} ${time}`;
}

/** For `JSON.parse`: keeps numbers as they are written, because JavaScript rounds large ones. Browsers before 2025 cannot. */
export function exact(_: string, value: unknown, context?: { source?: string }): unknown {
  const { rawJSON } = JSON as { rawJSON?: (text: string) => unknown };
  return typeof value === "number" && context?.source !== undefined && rawJSON ? rawJSON(context.source) : value;
}

/** Maximum length of JSON on one line. */
const LINE_LETTERS = 60;

/** Indents JSON if it is long; returns anything else unchanged. */
export function pretty(text: string): string {
  const first = text.trimStart()[0];
  if (first !== "{" && first !== "[") return text;
  try {
    const value: unknown = JSON.parse(text, exact);
    return text.length <= LINE_LETTERS ? text : JSON.stringify(value, null, 2);
  } catch {
    return text;
  }
}

/** Chooses the word for a count: one for exactly one, another for any other number. */
export function plural(value: number, one: string, many = `${one}s`): string {
  return `${count(value)} ${value === 1 ? one : many}`;
}
