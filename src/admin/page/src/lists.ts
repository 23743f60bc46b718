// Computations on lists of traces: merging, a strip of counts, sessions. Pure.
import type { StatsRow, Trace, Traces, TraceSummary, Turn } from "./api";

/** Merges lists, newest start first; if a trace is in several, the last one counts. */
export function merged(...lists: TraceSummary[][]): TraceSummary[] {
  const all = new Map(lists.flat().map((trace) => [trace.trace_id, trace]));
  return [...all.values()].sort((one, other) => other.start_unix_nano - one.start_unix_nano || (other.trace_id < one.trace_id ? -1 : 1));
}

/** Divides traces that were read after a list was shown: those in the list, and the ids of new ones. */
export function sorted(shown: TraceSummary[], read: TraceSummary[]): { grown: TraceSummary[]; fresh: string[] } {
  const known = new Set(shown.map((trace) => trace.trace_id));
  const fresh = read.flatMap(({ trace_id: id }) => (known.has(id) ? [] : [id]));
  return { grown: read.filter((trace) => known.has(trace.trace_id)), fresh };
}

/**
 * Returns the position up to which a list is read; `undefined` if it must be read completely again. The index of a restarted daemon is behind until it
 * is rebuilt; afterwards, the journal is another one.
 */
export function readUpTo(since: number | undefined, { position, index }: Traces): number | undefined {
  if (since === undefined || position >= since) return position;
  return index.rebuilding_percent === undefined ? undefined : since;
}

/** A segment of the strip. */
export interface Bucket {
  ok: number;
  failed: number;
}

/** Gaps of this many times the length of all other traces' starts make a few traces outliers. */
const FAR = 10;

/** Returns the first and the last of these times, except for a few that are far from all others: they would leave no room for these. */
export function extent(times: number[]): [number, number] {
  const all = times.toSorted((one, other) => one - other);
  const few = all.length < 8 ? 0 : Math.ceil(all.length / 20);
  const [low, high] = [all[few] ?? 0, all[all.length - 1 - few] ?? 0];
  const far = FAR * Math.max(1, high - low);
  return [all.find((time) => time >= low - far) ?? low, all.findLast((time) => time <= high + far) ?? high];
}

/** Counts traces by their start, in segments of equal length between two times in milliseconds; the outer ones include everything beyond. */
export function strip(traces: TraceSummary[], from: number, to: number, pieces: number): Bucket[] {
  const buckets: Bucket[] = Array.from({ length: pieces }, () => ({ ok: 0, failed: 0 }));
  for (const trace of traces) {
    const at = Math.floor(((trace.start_unix_nano / 1e6 - from) / (to - from)) * pieces);
    const bucket = buckets[Math.max(0, Math.min(pieces - 1, at))];
    if (bucket) bucket[trace.status === "error" ? "failed" : "ok"] += 1;
  }
  return buckets;
}

/** The traces of a session. */
export interface Session {
  id: string;
  turns: number;
  errors: number;
  tokens: number;
  cost: number | undefined;
  agents: string[];
  user: string | undefined;
  /** In milliseconds since 1970. */
  first: number;
  last: number;
}

/** Returns the sessions of these traces, in the order of their first trace. */
export function sessions(traces: TraceSummary[]): Session[] {
  const all = new Map<string, Session>();
  for (const trace of traces) {
    if (trace.session === undefined) continue;
    const start = trace.start_unix_nano / 1e6;
    const none = { id: trace.session, turns: 0, errors: 0, tokens: 0, cost: undefined, agents: [], user: trace.user, first: start, last: start };
    const known: Session = all.get(trace.session) ?? none;
    all.set(trace.session, {
      ...known,
      turns: known.turns + 1,
      errors: known.errors + (trace.status === "error" ? 1 : 0),
      tokens: known.tokens + trace.total_tokens,
      cost: trace.cost_usd === undefined ? known.cost : (known.cost ?? 0) + trace.cost_usd,
      agents: [...new Set([...known.agents, ...trace.agents])],
      first: Math.min(known.first, start),
      last: Math.max(known.last, start + trace.duration_ns / 1e6),
    });
  }
  return [...all.values()];
}

/** Returns the new turns: each request of a session repeats the previous ones. From the last question on, all are new, even in the same words. */
export function unsaid(seen: Set<string>, turns: Turn[]): Turn[] {
  const key = (turn: Turn) => `${turn.role}\n${turn.text}`;
  const asked = turns.findLastIndex((turn) => turn.role === "user");
  const fresh = turns.filter((turn, at) => at >= asked || !seen.has(key(turn)));
  for (const turn of turns) seen.add(key(turn));
  return fresh;
}

/** Returns the errors of a trace's spans, by span id. */
export function failures(trace: Trace): Map<string, string> {
  return new Map(trace.spans?.flatMap(({ span_id: id, error }) => (error === undefined ? [] : [[id, error]])));
}

/** Returns the filter term for exactly this name. Quotes cannot be escaped: for a name with quotes, the longest piece must suffice. */
export function wordFor(key: string, name: string): string {
  const pieces = name.split('"').sort((one, other) => other.length - one.length);
  return `${key}:"${pieces.length === 1 ? "=" : ""}${pieces[0]}"`;
}

/** Returns the receivers' address as seen from this browser: what the daemon reaches on loopback is on the machine that shows the console. */
export const seenFrom = (host: string, url: string) => url.replace(/\/\/(127\.0\.0\.1|\[::1\]):/, `//${host}:`);

/** Stands for a token of the receivers, which the console cannot know. */
export const TOKEN = "YOUR_TOKEN";

/** Returns a command line that sends a document to receivers at this address. */
export function curl(document: string, url: string, needsToken: boolean): string {
  let mark = "SPANFERRY";
  while (document.includes(mark)) mark += "_";
  const socket = /^unix:(.*):$/.exec(url)?.[1];
  const to = socket === undefined ? `'${url}/v1/traces'` : `--unix-socket '${socket}' 'http://localhost/v1/traces'`;
  const token = needsToken ? ` -H 'Authorization: Bearer ${TOKEN}'` : "";
  return `curl -sS -X POST ${to} -H 'Content-Type: application/json'${token} --data-binary @- <<'${mark}'\n${document}\n${mark}\n`;
}

/** Returns handoffs, which the API names `from -> to`, as a table of counts by giver and taker, the busiest first. */
export function matrix(rows: StatsRow[]): { from: string[]; to: string[]; counts: Map<string, Map<string, number>> } {
  const counts = new Map<string, Map<string, number>>();
  const to = new Set<string>();
  for (const row of rows) {
    const [giver = "", ...rest] = row.name.split(" -> ");
    const taker = rest.join(" -> ");
    to.add(taker);
    counts.set(giver, (counts.get(giver) ?? new Map<string, number>()).set(taker, row.count));
  }
  return { from: [...counts.keys()], to: [...to], counts };
}
