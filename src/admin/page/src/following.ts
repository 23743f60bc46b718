// Lists of traces that update themselves: only traces after the known position are requested.
import { useRef, useState } from "preact/hooks";
import { command, type IndexView, Refused, type TraceSummary, type Traces } from "./api";
import { merged, sorted } from "./lists";
import { type Answer, useAnswer } from "./parts";

const EVERY_MS = 2_000;
/** Time between two requests while the index has no traces. */
const EMPTY_EVERY_MS = 500;

export interface List {
  shown: TraceSummary[];
  /** The ids of traces that arrived since. */
  fresh: Set<string>;
  count: number;
  index?: IndexView;
}

const NONE: List = { shown: [], fresh: new Set(), count: 0 };

interface Followed {
  list: List;
  answer: Answer<unknown>;
  /** Reads older traces, before the last one. */
  older: () => void;
  /** Reads the list again, with the traces that arrived since. */
  show: () => void;
}

/** Follows the selected traces: known ones are updated in place; new ones wait until they are requested, unless `atOnce` is set. */
export function useTraces(asked: object, limit: number, atOnce = false): Followed {
  const key = JSON.stringify(asked);
  const [list, setList] = useState(NONE);
  const follows = useRef<{ key: string; since?: number }>({ key });
  if (follows.current.key !== key) follows.current = { key };
  const ask = async (signal: AbortSignal) => {
    const { since } = follows.current;
    const read = await command<Traces>("traces", { ...asked, limit, ...(since === undefined ? {} : { since }) }, signal);
    if (signal.aborted) return;
    // An empty list is read completely again: this is cheap, and the first record may be at the start of the journal.
    follows.current = read.traces.length === 0 && since === undefined ? { key } : { key, since: read.position };
    setList((now) => taken(since === undefined ? NONE : now, read, atOnce));
  };
  const answer = useAnswer(ask, key, list.index?.traces === 0 ? EMPTY_EVERY_MS : EVERY_MS);
  const show = () => {
    follows.current = { key };
    answer.again();
  };
  const older = () => {
    const before = list.shown[list.shown.length - 1]?.trace_id;
    const read = command<Traces>("traces", { ...asked, limit, before });
    // The last trace has been evicted, so the list has changed: read it again.
    read.then((read) => setList((now) => ({ ...now, shown: merged(now.shown, read.traces) })), show);
  };
  const isMistake = answer.error instanceof Refused && answer.error.status === 400;
  return { list: isMistake ? NONE : list, answer, older, show };
}

function taken(now: List, read: Traces, atOnce: boolean): List {
  const { index } = read;
  if (now.shown.length === 0) return { shown: read.traces, fresh: new Set(), count: read.count, index };
  if (atOnce) return { ...now, shown: merged(now.shown, read.traces), index };
  const { grown, fresh } = sorted(now.shown, read.traces);
  return { ...now, shown: merged(now.shown, grown), fresh: new Set([...now.fresh, ...fresh]), index };
}
