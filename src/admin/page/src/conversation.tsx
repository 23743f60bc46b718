// A conversation, as turns. Client content is always displayed as text.
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import type { Turn } from "./api";
import { count } from "./format";
import { Sent } from "./parts";

/** Number of turns drawn initially, and added by each "Show more". */
const TURNS_AT_ONCE = 100;
/** The daemon returns no further turns. */
const TURNS_MAX = 2_000;
/** Space above the highlighted turn, in pixels. */
const ROOM_ABOVE = 14;

/** Number of frames in which the highlighted turn is scrolled to. */
const SCROLLS = 5;

interface Props {
  turns: Turn[];
  /** The span whose turns are highlighted. */
  chosen?: string | undefined;
  choose?: (span: string) => void;
  /** Errors by span id. */
  failed?: Map<string, string>;
}

export function Conversation({ turns, chosen, choose, failed }: Props) {
  const [most, setMost] = useState(TURNS_AT_ONCE);
  const list = useRef<HTMLOListElement>(null);
  useEffect(() => {
    const box = list.current?.closest<HTMLElement>("[role=tabpanel]");
    const turn = list.current?.querySelector<HTMLElement>(".turn.chosen");
    let frame = 0;
    // Turns get their real heights once they are in sight, which moves those below.
    const scroll = (tries: number) => {
      if (!box || !turn || tries === 0) return;
      box.scrollTop = turn.offsetTop - ROOM_ABOVE;
      frame = requestAnimationFrame(() => scroll(tries - 1));
    };
    scroll(SCROLLS);
    return () => cancelAnimationFrame(frame);
  }, [chosen]);
  // The highlighted turn is always drawn.
  const drawn = Math.max(most, chosen === undefined ? 0 : turns.findLastIndex((turn) => turn.span_id === chosen) + 1);
  const pieces = useMemo(() => paired(turns.slice(0, drawn)), [turns, drawn]);
  if (turns.length === 0) return <p class="muted">This trace has no conversation, or its content was not sent.</p>;
  return (
    <ol class="turns" ref={list}>
      {turns.slice(0, drawn).map((turn, at) => (
        <li key={at} class={`turn ${side(turn.role)} ${turn.span_id !== undefined && turn.span_id === chosen ? "chosen" : ""}`}>
          {turn.span_id !== undefined && choose ? (
            <button type="button" class="role" title="Go to its span" onClick={() => turn.span_id && choose(turn.span_id)}>{turn.role}</button>
          ) : (
            <span class="role">{turn.role}</span>
          )}
          {pieces[at]?.map((piece, place) =>
            piece.call === undefined ? (
              <Sent key={place} text={piece.text} />
            ) : (
              <div key={place} class="call">
                <span class="called"><bdi>{piece.call}</bdi></span>
                {piece.text !== "" && <Sent text={piece.text} />}
              </div>
            ),
          )}
          {turn.role === "tool" && failed?.has(turn.span_id ?? "") && <pre class="bad" dir="auto">{failed.get(turn.span_id ?? "")}</pre>}
        </li>
      ))}
      {turns.length > drawn && (
        <li><button type="button" onClick={() => setMost(drawn + TURNS_AT_ONCE)}>Show more of {count(turns.length)} turns</button></li>
      )}
      {turns.length === drawn && drawn >= TURNS_MAX && <li class="muted">Further turns are not listed here; select a span to see what was said in it.</li>}
    </ol>
  );
}

const side = (role: string) => (["user", "assistant", "system", "tool"].includes(role) ? role : role === "developer" ? "system" : "other");

/** A piece of a turn: text, or the arguments of a call. */
export interface Piece {
  call?: string;
  text: string;
}

/** Separates calls (`-> name(arguments)`, and a tool's own arguments) from a turn's text. Pure. */
export function split(text: string): Piece[] {
  const pieces: Piece[] = [];
  for (const line of text.split("\n")) {
    const call = /^-> ([^\s(]+)\((.*)\)$/.exec(line) ?? (pieces.length === 0 ? /^([\w.-]+)\(([{[].*[}\]]|)\)$/.exec(line) : null);
    const last = pieces[pieces.length - 1];
    if (call) pieces.push({ call: call[1] ?? "", text: call[2] ?? "" });
    else if (last && last.call === undefined) last.text += `\n${line}`;
    else pieces.push({ text: line });
  }
  return pieces.filter((piece) => piece.call !== undefined || piece.text.trim() !== "");
}

/** Returns the pieces of turns. A tool's arguments are left out if the model's turn has just shown them. Pure. */
export function paired(turns: Turn[]): Piece[][] {
  const said = new Set<string>();
  return turns.map(({ role, text }) =>
    split(text).map((piece) => {
      if (piece.call === undefined) return piece;
      const key = `${piece.call} ${piece.text.replaceAll(/\s/g, "")}`;
      if (role === "tool" && said.delete(key)) return { call: piece.call, text: "" };
      if (role !== "tool") said.add(key);
      return piece;
    }),
  );
}
