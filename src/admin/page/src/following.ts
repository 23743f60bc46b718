// Lists of traces that go on by themselves: what is behind a position is asked for, and nothing else.
import { useRef, useState } from "preact/hooks";
import { command, type IndexView, Refused, type TraceSummary, type Traces } from "./api";
import { merged, sorted } from "./lists";
import { type Answer, useAnswer } from "./parts";

const EVERY_MS = 2_000;
/** How often it is looked while there is nothing to see. */
const EMPTY_EVERY_MS = 500;

export interface List {
  shown: TraceSummary[];
  /** The ids of those that came since. */
  fresh: Set<string>;
  count: number;
  index?: IndexView;
}

const NONE: List = { shown: [], fresh: new Set(), count: 0 };

interface Followed {
  list: List;
  answer: Answer<unknown>;
  /** Reads those before the last one. */
  older: () => void;
  /** Reads all anew, with what came since. */
  show: () => void;
}

/** Follows the traces that are meant: what grows changes in its place, and what is new waits until it is asked for, unless it is taken `atOnce`. */
export function useTraces(asked: object, limit: number, atOnce = false): Followed {
  const key = JSON.stringify(asked);
  const [list, setList] = useState(NONE);
  const follows = useRef<{ key: string; since?: number }>({ key });
  if (follows.current.key !== key) follows.current = { key };
  const ask = async (signal: AbortSignal) => {
    const { since } = follows.current;
    const read = await command<Traces>("traces", { ...asked, limit, ...(since === undefined ? {} : { since }) }, signal);
    if (signal.aborted) return;
    // What is empty is read whole: it costs nothing, and the first record may stand where the journal begins.
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
    // The last one is gone: the list is another one by now.
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
