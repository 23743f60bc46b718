// The selection of traces: the filter's terms and the time, both in the address.
import { useEffect, useRef, useState } from "preact/hooks";
import { Problem } from "./parts";
import { place, set } from "./route";

const TIMES = [
  ["", "All time"],
  ["15m", "Last 15 minutes"],
  ["1h", "Last hour"],
  ["24h", "Last 24 hours"],
  ["7d", "Last 7 days"],
] as const;

const PARTS = "agent: tool: model: workflow: session: user:";
const OTHERS = "status:error dur:>2s tokens:>1000 cost:>0.05 spans:>100";

/** Returns the part of a request that selects traces. */
export function which(params: Record<string, string>): { filter?: string[]; from?: string; to?: string } {
  const { q, from, to } = params;
  return { ...(q ? { filter: [q] } : {}), ...(from ? { from } : {}), ...(to ? { to } : {}) };
}

/** The fields for the filter and for the time. */
export function FilterBar({ error }: { error: Error | undefined }) {
  const { q = "", from = "", to = "" } = place.value.params;
  const field = useRef<HTMLInputElement>(null);
  const [text, setText] = useState(q);
  useEffect(() => setText(q), [q]);
  const isOwn = !TIMES.some(([time]) => time === from) || to !== "";
  return (
    <form
      class="filter"
      role="search"
      onSubmit={(event) => {
        event.preventDefault();
        set({ q: text.trim() });
        field.current?.blur();
      }}
    >
      <input
        id="filter"
        ref={field}
        type="search"
        aria-label="Filter"
        aria-describedby="filter-hint"
        placeholder="agent:triage status:error dur:>2s tokens:>1000"
        autocomplete="off"
        spellcheck={false}
        value={text}
        onInput={(event) => setText(event.currentTarget.value)}
        onKeyDown={(event) => {
          if (event.key === "Escape") field.current?.blur();
        }}
      />
      <select
        aria-label="Time"
        value={isOwn ? "own" : from}
        onChange={(event) => set({ from: event.currentTarget.value, to: "" })}
      >
        {TIMES.map(([time, name]) => (
          <option key={time} value={time}>{name}</option>
        ))}
        {isOwn && <option value="own">Custom range</option>}
      </select>
      <button type="submit" class="main">Filter</button>
      {(q !== "" || from !== "" || to !== "") && (
        <button type="button" onClick={() => set({ q: "", from: "", to: "" })}>Clear</button>
      )}
      <p id="filter-hint" class="hint">
        All terms must match; a minus negates one. <code>{PARTS}</code> match part of a name, or with <code>=</code> all of it. There are also <code>{OTHERS}</code>. A
        trace's id finds the trace; anything else is looked for in every name.
      </p>
      <Problem error={error} />
    </form>
  );
}
