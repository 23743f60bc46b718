// The rows of a trace's tree and the positions of their bars. Pure.
import type { SpanView } from "./api";

/** A span's row. */
export interface Row {
  span: SpanView;
  /** The index of the parent row; -1 at the top. */
  parent: number;
  /** The index after the last descendant. */
  end: number;
}

/** Makes rows of spans in depth-first order. */
export function rows(spans: SpanView[]): Row[] {
  const all: Row[] = [];
  const above: number[] = [];
  for (const [at, span] of spans.entries()) {
    while (above.length > span.depth) close(all, above, at);
    all.push({ span, parent: above[above.length - 1] ?? -1, end: spans.length });
    above.push(at);
  }
  return all;
}

function close(all: Row[], above: number[], at: number): void {
  const row = all[above.pop() ?? -1];
  if (row) row.end = at;
}

/** Returns the indexes of the rows that are not below a collapsed one. These are identified by span id, since a trace grows. */
export function visible(all: Row[], collapsed: ReadonlySet<string>): number[] {
  const places: number[] = [];
  for (let at = 0; at < all.length; ) {
    places.push(at);
    const row = all[at];
    at = row && collapsed.has(row.span.span_id) ? row.end : at + 1;
  }
  return places;
}

/** Returns the collapsed rows without the ancestors of a row, so that the row is visible. */
export function uncover(all: Row[], collapsed: ReadonlySet<string>, at: number): Set<string> {
  const left = new Set(collapsed);
  for (let up = all[all[at]?.parent ?? -1]; up; up = all[up.parent]) left.delete(up.span.span_id);
  return left;
}

/** Returns all rows with children, except the top ones. */
export function collapsible(all: Row[]): Set<string> {
  return new Set(all.flatMap((row, at) => (row.end > at + 1 && row.parent >= 0 ? [row.span.span_id] : [])));
}

/** Returns the range of rows to draw: the visible ones, and some around them. */
export function inSight(scrolled: number, height: number, rowHeight: number, total: number, around = 10): [number, number] {
  const first = Math.max(0, Math.min(total, Math.floor(scrolled / rowHeight) - around));
  return [first, Math.min(total, Math.ceil((scrolled + height) / rowHeight) + around)];
}

/** Returns the position of a bar in a trace of this length, in percent of the width. */
export function bar({ after_ns: after, duration_ns: took }: SpanView, length: number): { left: number; width: number } {
  if (!(length > 0)) return { left: 0, width: 100 };
  const left = Math.min(100, (after / length) * 100);
  return { left, width: Math.min(100 - left, (took / length) * 100) };
}

/** Returns round times for a scale of this length, at most six, each with space for its label before the end. */
export function ticks(length: number): number[] {
  if (!(length > 0) || !Number.isFinite(length)) return [];
  const rough = length / 4;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * ([1, 2, 5].find((times) => power * times >= rough) ?? 10);
  const marks: number[] = [];
  for (let at = 0; at < 0.8 * length && marks.length < 6; at += step) marks.push(at);
  return marks;
}

/** Returns the indexes of rows that contain a text. */
export function found(all: Row[], text: string): number[] {
  const wanted = text.trim().toLowerCase();
  if (wanted === "") return [];
  return all.flatMap(({ span }, at) => {
    const said = [span.name, span.kind, span.agent, span.tool, span.model, span.error, span.span_id];
    return said.some((part) => part?.toLowerCase().includes(wanted)) ? [at] : [];
  });
}

/** Returns the next or the previous index in this list, wrapping around at the end. */
export function next(places: number[], at: number, step: 1 | -1): number | undefined {
  const beyond = step === 1 ? places.find((place) => place > at) : places.findLast((place) => place < at);
  return beyond ?? (step === 1 ? places[0] : places[places.length - 1]);
}

/** Returns the time during which spans of these kinds were running, without counting overlaps twice, in nanoseconds. */
export function busy(spans: SpanView[], kinds: string[]): number {
  const parts = spans.filter((span) => kinds.includes(span.kind) && span.start_unix_nano > 0);
  parts.sort((one, other) => one.after_ns - other.after_ns);
  let [until, sum] = [0, 0];
  for (const { after_ns: start, duration_ns: length } of parts) {
    const end = start + length;
    sum += Math.max(0, end - Math.max(start, until));
    until = Math.max(until, end);
  }
  return sum;
}

/** Returns the interval for reading a trace of this size again, in milliseconds: large traces cost the daemon more. */
export const readEvery = (spans: number) => (spans < 2_000 ? 2_000 : 15_000);
