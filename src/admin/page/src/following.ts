// Lists of traces that update themselves: only traces after the known position are requested.
import { useState } from "preact/hooks";
import { command, type IndexView, Refused, type TraceSummary, type Traces } from "./api";
import { merged, readUpTo, sorted } from "./lists";
import { type Answer, useAnswer } from "./parts";
import { place } from "./route";

const EVERY_MS = 2_000;
/** Time between two requests while the index has no traces. */
const EMPTY_EVERY_MS = 500;
/** Maximum number of traces in an answer. */
const ANSWERED_MAX = 1_000;
/** Maximum number of new traces that are read and counted: more than anybody reads, for example after the tab was hidden. */
export const FRESH_MAX = 10_000;

export interface List {
  shown: TraceSummary[];
  /** The ids of traces that arrived since. */
  fresh: Set<string>;
  count: number;
  index?: IndexView;
}

const NONE: List = { shown: [], fresh: new Set(), count: 0 };

/** The list followed last, and the position up to which it was read. A page shows it again as it was left. */
let followed: { page: string; key: string; since?: number | undefined; list: List } = { page: "", key: "", list: NONE };

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
  const { page } = place.value;
  const key = page + JSON.stringify(asked);
  const [, setTurn] = useState(0);
  if (followed.key !== key) followed = { page, key, list: followed.page === page ? followed.list : NONE };
  const { list } = followed;
  const ask = async (signal: AbortSignal) => {
    const { since } = followed;
    const read = await readAll(since === undefined ? { ...asked, limit } : { ...asked, since, limit: ANSWERED_MAX }, signal);
    if (signal.aborted) return;
    const now = taken(since === undefined ? NONE : followed.list, read, atOnce ? limit : 0);
    // An empty list is read completely again: this is cheap, and the first record may be at the start of the journal.
    followed = { page, key, since: now.shown.length === 0 ? undefined : readUpTo(since, read), list: now };
  };
  const answer = useAnswer(ask, key, list.index?.traces === 0 ? EMPTY_EVERY_MS : EVERY_MS);
  const show = () => {
    followed = { ...followed, since: undefined };
    answer.again();
  };
  const older = async () => {
    const before = list.shown[list.shown.length - 1]?.trace_id;
    try {
      const { traces } = await command<Traces>("traces", { ...asked, limit, before });
      if (followed.key !== key) return;
      followed = { ...followed, list: { ...followed.list, shown: merged(followed.list.shown, traces) } };
      setTurn((turn) => turn + 1);
    } catch {
      // The last trace has been evicted, so the list has changed: read it again.
      show();
    }
  };
  const isMistake = answer.error instanceof Refused && answer.error.status === 400;
  return { list: isMistake ? NONE : list, answer, older: () => void older(), show };
}

/** Reads a list; if it is of traces since a position, not only its beginning, but all of it up to the maximum that is counted. */
async function readAll(asked: { since?: number; limit: number }, signal: AbortSignal): Promise<Traces> {
  const read = await command<Traces>("traces", asked, signal);
  let more = read.traces;
  while (asked.since !== undefined && more.length === asked.limit && read.traces.length < FRESH_MAX) {
    ({ traces: more } = await command<Traces>("traces", { ...asked, before: more[more.length - 1]?.trace_id }, signal));
    read.traces.push(...more);
  }
  return read;
}

/** Returns the list with what was read since; at most `most` traces, the newest, if new ones are shown at once. */
function taken(now: List, read: Traces, most: number): List {
  const { index } = read;
  if (now.shown.length === 0) return { shown: read.traces, fresh: new Set(), count: read.count, index };
  if (most > 0) return { ...now, shown: merged(now.shown, read.traces).slice(0, most), index };
  const { grown, fresh } = sorted(now.shown, read.traces);
  return { ...now, shown: merged(now.shown, grown), fresh: new Set([...now.fresh, ...fresh].slice(0, FRESH_MAX)), index };
}
