// The fates of a trace's items at each sink, in words. Pure.
import type { SinkLedger, SinkView, TraceSummary, Verified } from "./api";
import { count, plural } from "./format";

/** The fates of items, in display order. */
export const FATES = ["delivered", "pending", "dead_lettered", "filtered", "dropped", "before_it_joined"] as const;
export type Fate = (typeof FATES)[number];

/** The fates by urgency. */
const FIRST: Fate[] = ["dead_lettered", "dropped", "pending", "delivered", "filtered", "before_it_joined"];

/** The words for the fate of a single span. */
export const WORDS: Record<Fate, string> = {
  delivered: "delivered",
  pending: "pending",
  dead_lettered: "dead letter",
  filtered: "filtered",
  dropped: "dropped",
  before_it_joined: "from before it joined",
};

/** The port reports the fates of this many spans individually; those of further ones are unknown. */
const TOLD_MAX = 1_000;

/** Returns the number of a sink's items for each fate that occurs. */
export const shares = (sink: SinkLedger) => FATES.map((fate) => [fate, sink[fate] ?? 0] as const).filter(([, items]) => items > 0);

/** Returns the most urgent fate of a trace's items at a sink; `undefined` if none of them is meant for the sink. */
export const foremost = (sink: SinkLedger): Fate | undefined => FIRST.find((fate) => (sink[fate] ?? 0) > 0);

/** Returns all fates in words. */
export function outcome(sink: SinkLedger): string {
  const said = shares(sink).map(([fate, items]) => (fate === "dead_lettered" ? plural(items, "dead letter") : `${count(items)} ${WORDS[fate]}`));
  return said.join(", ") || "nothing is meant for it";
}

/** The fate of something at a sink, as a mark and in words. */
export interface Told {
  sink: string;
  fate: Fate | undefined;
  words: string;
}

/** Returns the fate of a trace at each sink. */
export const ofTrace = (verified: Verified): Told[] => verified.sinks.map((sink) => ({ sink: sink.sink, fate: foremost(sink), words: outcome(sink) }));

/** Returns the fates of single spans at each sink, by their ids; no fate if the port did not report it. */
export function ofSpans(verified: Verified): (id: string) => Told[] {
  const sinks = verified.sinks.map(({ spans = {}, ...sink }) => {
    const all = shares(sink).map(([fate]) => fate);
    const other = all.length === 1 ? all[0] : Object.keys(spans).length < TOLD_MAX ? ("delivered" as const) : undefined;
    return { sink: sink.sink, spans, other };
  });
  return (id) =>
    sinks.map(({ sink, spans, other }) => {
      const fate = spans[id] ?? other;
      return { sink, fate, words: fate ? WORDS[fate] : "not told" };
    });
}

/** What is known of a trace's delivery, and the position of the trace to which it applies. */
export interface Known {
  verified: Verified;
  last_position: number;
}

/** Returns whether a trace's delivery can still change: the trace has grown, or a sink does not have all of it. */
export function isOpen(trace: TraceSummary, known: Known | undefined): boolean {
  if (known?.last_position !== trace.last_position) return true;
  return known.verified.sinks.some((sink) => sink.pending > 0 || sink.dead_lettered > 0);
}

/** Maximum number of spans of the traces in one request, so that small traces do not wait for large ones. */
const AT_ONCE_SPANS = 5_000;

/** Divides traces into portions, small ones first. */
export function portions(traces: TraceSummary[]): TraceSummary[][] {
  const all: TraceSummary[][] = [];
  let room = 0;
  for (const trace of traces.toSorted((one, other) => one.spans - other.spans)) {
    if (room < trace.spans || all.length === 0) {
      all.push([]);
      room = AT_ONCE_SPANS;
    }
    all[all.length - 1]?.push(trace);
    room -= trace.spans;
  }
  return all;
}

/** Returns a text that changes with every fate of an item at a sink, and with the list of sinks. */
export const news = (sinks: SinkView[]) => sinks.map((sink) => [sink.name, ...FATES.map((fate) => sink[fate as keyof SinkView])].join()).join(";");
