// Small parts shared by several pages.
import type { ComponentChildren } from "preact";
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { type Link, Refused, tokens } from "./api";
import { count, pretty } from "./format";

/** A drawing for each kind of work, in a square of 16. */
const ICONS: Record<string, string> = {
  agent: "M8 2v2M4 4.5h8v7H4zM6.3 7v1.6M9.7 7v1.6M2 7v3M14 7v3M6 14h4",
  generation: "M8 2l1.6 4.4L14 8l-4.4 1.6L8 14l-1.6-4.4L2 8l4.4-1.6z",
  tool: "M10 2.5a3.5 3.5 0 0 0-3.3 4.8L2.5 11.5l2 2 4.2-4.2A3.5 3.5 0 0 0 13.4 5L11 7 9 5l2-2.4z",
  handoff: "M2 5h10M9 2l3 3-3 3M14 11H4M7 8l-3 3 3 3",
  guardrail: "M8 2l5 2v4c0 3-2 5-5 6-3-1-5-3-5-6V4z",
  retriever: "M7 2.5a4.5 4.5 0 1 0 0 9 4.5 4.5 0 0 0 0-9M10.3 10.3L14 14",
  embedding: "M3 3h3v3H3zM10 3h3v3h-3zM3 10h3v3H3zM10 10h3v3h-3z",
  reranker: "M3 4h10M3 8h7M3 12h4",
  chain: "M2 8h3M6.5 8h3M11 8h3M5 6h2v4H5zM9 6h2v4H9z",
  evaluator: "M3 8.5l3 3 7-7",
  mcp: "M5 2v4M11 2v4M3.5 6h9v2.5a4.5 4.5 0 0 1-9 0zM8 13v2",
  speech: "M3 6h2l3-3v10l-3-3H3zM10.5 6a3 3 0 0 1 0 4M12.5 4a6 6 0 0 1 0 8",
  transcription: "M6 2.5h4v6H6zM4 7.5a4 4 0 0 0 8 0M8 11.5V14",
  event: "M8 3v5l3 2M8 2a6 6 0 1 0 0 12A6 6 0 0 0 8 2",
  custom: "M8 3l5 5-5 5-5-5z",
};

/** The kind of work, as a drawing with its name as label. */
export function Icon({ kind }: { kind: string }) {
  return (
    <svg class={`icon kind-${kind}`} viewBox="0 0 16 16" role="img" aria-label={kind}>
      <path d={ICONS[kind] ?? ICONS.custom} />
    </svg>
  );
}

/** `ok` or `error`, in words for readers who cannot see colors. */
export function State({ status }: { status: string }) {
  return <span class={`state ${status === "error" ? "bad" : "good"}`}>{status}</span>;
}

/** An error message; a caret stays below the text that it points at. The page itself handles a missing token. */
export function Problem({ error }: { error: Error | undefined }) {
  if (!error || (error instanceof Refused && error.status === 401)) return null;
  const lines = error.message.split("\n");
  return (
    <pre class="problem" role="alert" tabIndex={0}>
      {lines.map((line, place) => <span key={place} class={line.startsWith(" ") ? "exact" : ""}>{line}</span>)}
    </pre>
  );
}

/** An empty place, with what to do about it. */
export function Nothing({ title, children }: { title: string; children?: ComponentChildren }) {
  return (
    <div class="nothing">
      <h2>{title}</h2>
      {children}
    </div>
  );
}

/** Texts longer than this are folded. */
const FOLDED_LETTERS = 4_000;

/** A text from a client: indented if it is JSON, and shortened to a page until expanded. */
export function Sent({ text }: { text: string }) {
  const [open, setOpen] = useState(false);
  const all = useMemo(() => pretty(text), [text]);
  const isLong = all.length > FOLDED_LETTERS;
  return (
    <div class="sent">
      <pre dir={/^\s*[[{]/.test(all) ? "ltr" : "auto"}>{isLong && !open ? `${all.slice(0, FOLDED_LETTERS)}...` : all}</pre>
      {isLong && (
        <button type="button" onClick={() => setOpen(!open)}>
          {open ? "Collapse" : `Show all ${count(all.length)} characters`}
        </button>
      )}
    </div>
  );
}

/** A list of names and values. */
export function Facts({ facts }: { facts: [string, ComponentChildren][] }) {
  return (
    <dl class="facts">
      {facts.map(([name, value]) => (
        <div key={name}>
          <dt>{name}</dt>
          <dd>{value}</dd>
        </div>
      ))}
    </dl>
  );
}

/** Links to the same trace or span in other consoles. The addresses come from the configuration, not from a client. */
export function Links({ links = [] }: { links?: Link[] | undefined }) {
  return (
    <>
      {links.map(({ sink, url }) => (
        <a key={sink} class="elsewhere" href={url} target="_blank" rel="noreferrer">{sink} <span aria-hidden="true">&#8599;</span></a>
      ))}
    </>
  );
}

/** Time after which a daemon that does not answer is asked again. */
const RETRY_MS = 2_000;

/** The result of a request. */
export interface Answer<T> {
  value?: T;
  error?: Error;
  /** Whether there was an answer. */
  isDone: boolean;
  /** Repeats the request. */
  again: () => void;
}

/**
 * Sends a request when the page opens and whenever `key` changes, and again while the daemon does not answer. With `every`, repeats it after so many
 * milliseconds while the tab is visible, but waits at least `rest` times as long as the answer took.
 */
export function useAnswer<T>(ask: (signal: AbortSignal) => Promise<T>, key: string, every = 0, rest = 0): Answer<T> {
  const [answer, setAnswer] = useState<{ key?: string; isDone?: boolean; value?: T; error?: Error }>({});
  const [turn, setTurn] = useState(0);
  const asking = useRef(ask);
  asking.current = ask;
  useEffect(() => {
    const stop = new AbortController();
    let timer: ReturnType<typeof setTimeout> | undefined;
    const look = async () => {
      if (document.hidden && every > 0) return;
      const begun = performance.now();
      let next = every;
      try {
        const value = await asking.current(stop.signal);
        if (stop.signal.aborted) return;
        setAnswer({ key, value, isDone: true });
      } catch (error) {
        if (stop.signal.aborted) return;
        setAnswer((now) => ({ ...(now.key === key ? now : { key }), error: error as Error }));
        // An invalid request stays invalid, so it is not repeated.
        if (error instanceof Refused && error.status === 400) return;
        if (error instanceof Refused && error.status === 0) next = Math.max(every, RETRY_MS);
      }
      if (next > 0) timer = setTimeout(look, Math.max(next, rest * (performance.now() - begun)));
    };
    const seen = () => {
      if (every === 0 || document.hidden) return;
      clearTimeout(timer);
      void look();
    };
    document.addEventListener("visibilitychange", seen);
    void look();
    return () => {
      stop.abort();
      clearTimeout(timer);
      document.removeEventListener("visibilitychange", seen);
    };
  }, [key, turn, every, tokens.value]);
  const now = answer.key === key ? answer : {};
  return { ...now, isDone: now.isDone ?? false, again: () => setTurn((turn) => turn + 1) };
}

/** Handles keys that are pressed outside of fields, each by its name. */
export function useKeys(keys: Record<string, () => void>): void {
  const now = useRef(keys);
  now.current = keys;
  useEffect(() => {
    const press = (event: KeyboardEvent) => {
      const at = event.target as HTMLElement;
      const isField = at.matches("input, textarea, select") || at.isContentEditable;
      if (event.ctrlKey || event.metaKey || event.altKey || isField || document.querySelector("dialog[open]")) return;
      const act = now.current[event.key];
      if (!act) return;
      event.preventDefault();
      act();
    };
    addEventListener("keydown", press);
    return () => removeEventListener("keydown", press);
  }, []);
}

/** Sets the title of the page and of its tab. */
export function useTitle(title: string): void {
  useEffect(() => {
    document.title = title === "" ? "Spanferry" : `${title} - Spanferry`;
  }, [title]);
}

/** Copies a text, also if the browser denies access to the clipboard. */
export async function copy(text: string): Promise<void> {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const field = document.createElement("textarea");
    field.value = text;
    document.body.append(field);
    field.select();
    const isCopied = document.execCommand("copy");
    field.remove();
    if (!isCopied) throw new Error("The browser does not allow copying.");
  }
}
