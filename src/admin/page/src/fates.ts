// What became of a trace's items at each sink, in words. Pure.
import type { SinkLedger, SinkView, TraceSummary, Verified } from "./api";
import { count, plural } from "./format";

/** What becomes of items, in the order in which it is shown. */
export const FATES = ["delivered", "pending", "dead_lettered", "filtered", "dropped", "before_it_joined"] as const;
export type Fate = (typeof FATES)[number];

/** What somebody should know first. */
const FIRST: Fate[] = ["dead_lettered", "dropped", "pending", "delivered", "filtered", "before_it_joined"];

/** What became of a single span. */
export const WORDS: Record<Fate, string> = {
  delivered: "delivered",
  pending: "pending",
  dead_lettered: "a dead letter",
  filtered: "filtered",
  dropped: "dropped",
  before_it_joined: "from before it joined",
};

/** Spans whose fate the port tells one by one; of further ones nothing is known. */
const TOLD_MAX = 1_000;

/** The items of a sink by what became of them. */
export const shares = (sink: SinkLedger) => FATES.map((fate) => [fate, sink[fate] ?? 0] as const).filter(([, items]) => items > 0);

/** What stands out of what became of a trace at a sink; nothing where nothing of it is meant for the sink. */
export const foremost = (sink: SinkLedger): Fate | undefined => FIRST.find((fate) => (sink[fate] ?? 0) > 0);

/** All of it in words. */
export function outcome(sink: SinkLedger): string {
  const said = shares(sink).map(([fate, items]) => (fate === "dead_lettered" ? plural(items, "dead letter") : `${count(items)} ${WORDS[fate]}`));
  return said.join(", ") || "nothing is meant for it";
}

/** What became of something at a sink, as a mark and in words. */
export interface Told {
  sink: string;
  fate: Fate | undefined;
  words: string;
}

/** What became of a trace at each sink. */
export const ofTrace = (verified: Verified): Told[] => verified.sinks.map((sink) => ({ sink: sink.sink, fate: foremost(sink), words: outcome(sink) }));

/** What became of single spans at each sink, by their ids; no fate where the port did not tell. */
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

/** What is known of a trace's delivery, and of how much of the trace that is. */
export interface Known {
  verified: Verified;
  last_position: number;
}

/** Whether more may become of what is known of a trace: it has grown, or a sink lacks some of it. */
export function isOpen(trace: TraceSummary, known: Known | undefined): boolean {
  if (known?.last_position !== trace.last_position) return true;
  return known.verified.sinks.some((sink) => sink.pending > 0 || sink.dead_lettered > 0);
}

/** Spans of the traces that are asked for at once: what large ones take is not waited for by small ones. */
const AT_ONCE_SPANS = 5_000;

/** Traces in portions, the small ones first. */
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

/** Changes whenever something has become of an item at a sink, or there are other sinks. */
export const news = (sinks: SinkView[]) => sinks.map((sink) => [sink.name, ...FATES.map((fate) => sink[fate as keyof SinkView])].join()).join(";");
