// The admin port's answers, and requests to it. Names are those of the commands' answers.
import { signal } from "@preact/signals";
import type { Fate } from "./fates";
import type { exact } from "./format";

export interface TraceSummary {
  trace_id: string;
  name: string;
  session?: string;
  user?: string;
  start_unix_nano: number;
  duration_ns: number;
  status: string;
  spans: number;
  errors: number;
  input_tokens: number;
  output_tokens: number;
  total_tokens: number;
  cost_usd?: number;
  agents: string[];
  tools: string[];
  models: string[];
  last_position: number;
}

export interface SpanView {
  span_id: string;
  depth: number;
  is_astray?: boolean;
  kind: string;
  name: string;
  agent?: string;
  tool?: string;
  model?: string;
  start_unix_nano: number;
  /** Start after that of the trace, as `readTrace` adds it: JavaScript rounds nanoseconds since 1970. */
  after_ns: number;
  duration_ns: number;
  input_tokens?: number;
  output_tokens?: number;
  cost_usd?: number;
  error?: string;
}

export interface Turn {
  role: string;
  text: string;
  span_id?: string;
}

export interface IndexView {
  traces: number;
  evicted: number;
  rebuilding_percent?: number;
}

export interface Traces {
  index: IndexView;
  position: number;
  count: number;
  traces: TraceSummary[];
}

/** The address at which a sink shows a trace, or one of its spans, in a browser. */
export interface Link {
  sink: string;
  url: string;
}

export interface Trace {
  summary: TraceSummary;
  links?: Link[];
  spans?: SpanView[];
  conversation?: Turn[];
  unreadable: number;
  document?: string;
  /** The full contents of a single span. */
  line?: Record<string, unknown>;
}

export interface SinkLedger {
  sink: string;
  delivered: number;
  pending: number;
  dead_lettered: number;
  filtered?: number | null;
  dropped: number;
  before_it_joined: number;
  /** The fates of undelivered spans. */
  spans?: Record<string, Fate>;
}

export interface Verified {
  trace_id: string;
  received: number;
  distinct: number;
  duplicates: number;
  trace_objects: number;
  orphans: number;
  missing_parents: string[];
  in_circles: number;
  unended: number;
  first_received: string;
  last_received: string;
  sinks: SinkLedger[];
}

export interface StatsRow {
  name: string;
  count: number;
  errors: number;
  p50_ns: number;
  p95_ns: number;
  p99_ns: number;
  input_tokens: number;
  output_tokens: number;
  total_tokens: number;
  cost_usd?: number;
}

export interface Stats {
  index: IndexView;
  traces: number;
  rows: StatsRow[];
}

export interface SinkView {
  name: string;
  type: string;
  state: string;
  problem: string | null;
  delivered: number;
  pending: number;
  dead_lettered: number;
  filtered: number;
  dropped: number;
  pending_bytes: number;
  oldest_age_seconds: number;
  retries: number;
  breaker_open: boolean;
  in_flight: number;
  concurrency: number;
}

export interface Status {
  version: string;
  uptime_seconds: number;
  accepting: boolean;
  /** Where OpenTelemetry over HTTP is received, as seen from the daemon's machine. */
  receives_at: string;
  /** Whether requests there need a token. */
  needs_token: boolean;
  /** The last reload, if it was refused. */
  refused_reload: { at: string; problem: string } | null;
  receivers: Record<string, Record<string, number>>;
  journal: {
    mode: string;
    health: string;
    problem: string | null;
    bytes: number;
    bytes_max: number;
    items: number;
    dead_letters: number;
    quarantined: number;
  };
  sinks: SinkView[];
}

export interface Group {
  sink: string;
  reason: string;
  items: number;
  first: string;
  last: string;
}

export interface Entry {
  id: number;
  traces: string[];
  /** What the backend answered. */
  answer?: string;
  /** The item itself. */
  payload?: string;
}

export interface Listed {
  items: number;
  groups: Group[];
  newest: Entry[];
}

export interface Progress {
  items: number;
  delivered: number;
  rejected: number;
  not_understood: number;
  unreadable: number;
}

/** A failed request, and the reason. */
export class Refused extends Error {
  constructor(
    readonly status: number,
    why: string,
  ) {
    super(why);
  }
}

/** Set when the port requires a token. */
export const asksToken = signal(false);
/** Number of tokens entered so far, so that requests that failed without one are repeated. */
export const tokens = signal(0);

const TOKEN = "spanferry.token";

/** Keeps a token until the tab is closed. */
export function giveToken(token: string): void {
  sessionStorage.setItem(TOKEN, token);
  asksToken.value = false;
  tokens.value += 1;
}

/** Returns whether there is a token; if the port still requires one, this token is wrong. */
export const hasToken = () => sessionStorage.getItem(TOKEN) !== null;

async function ask(path: string, init: RequestInit): Promise<string> {
  const token = sessionStorage.getItem(TOKEN);
  const headers = { ...(init.headers as Record<string, string>), ...(token ? { Authorization: `Bearer ${token}` } : {}) };
  let response: Response;
  try {
    response = await fetch(path, { ...init, headers, cache: "no-store" });
  } catch (error) {
    if ((error as Error).name === "AbortError") throw error;
    throw new Refused(0, "The daemon does not answer. Is it running?");
  }
  const text = await response.text();
  if (response.status === 401) asksToken.value = true;
  if (!response.ok && response.status !== 503) throw new Refused(response.status, errorOf(text));
  return text;
}

function errorOf(text: string): string {
  try {
    return (JSON.parse(text) as { error: string }).error ?? text;
  } catch {
    return text.trim();
  }
}

/** Sends a command; returns its result, which is the last line of the answer, as `JSON.parse` does with a reviver. The text may be changed before. */
export async function command<T>(path: string, body: object, signal?: AbortSignal, reviver?: typeof exact, change = (text: string) => text): Promise<T> {
  const init: RequestInit = {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
    ...(signal ? { signal } : {}),
  };
  const text = await ask(`/api/v1/${path}`, init);
  const last = text.trimEnd().slice(text.trimEnd().lastIndexOf("\n") + 1);
  const reply = JSON.parse(change(last), reviver) as { done?: T; error?: string };
  if (reply.done === undefined) throw new Refused(500, reply.error ?? "The daemon ended before it was done.");
  return reply.done;
}

/** Reads a trace with all spans. */
export const readTrace = (id: string, signal: AbortSignal) => command<Trace>("traces/show", { id }, signal, undefined, withAfter);

/** Adds to each span how long after its trace it started. The trace's own start comes first; a client's text cannot contain an unescaped key. Pure. */
export function withAfter(text: string): string {
  let begun: bigint | undefined;
  return text.replace(/"start_unix_nano":(\d+)/g, (said, digits: string) => {
    const at = BigInt(digits);
    begun ??= at;
    return `${said},"after_ns":${at > begun ? at - begun : 0}`;
  });
}

/** The last contents of /status. */
export const daemon = signal<Status | undefined>(undefined);

/** Returns the contents of /status. */
export async function status(signal?: AbortSignal): Promise<Status> {
  const read = JSON.parse(await ask("/status", signal ? { signal } : {})) as Status;
  daemon.value = read;
  return read;
}
