// Converts addresses to pages and back.
import { signal } from "@preact/signals";

export const BASE = "/ui";

export interface Place {
  /** The page: traces, trace, sessions, session, agents or pipeline. */
  page: string;
  /** The id of a trace or a session. */
  id: string;
  /** The query parameters. */
  params: Record<string, string>;
}

/** Reads an address below the base; an unknown page is the first one. Pure. */
export function read(pathname: string, search: string): Place {
  const [page = "", ...rest] = pathname.slice(BASE.length).split("/").filter((part) => part !== "");
  const params = Object.fromEntries(new URLSearchParams(search));
  const id = decode(rest.join("/"));
  if (page === "traces" && id !== "") return { page: "trace", id, params };
  if (page === "sessions" && id !== "") return { page: "session", id, params };
  return { page: ["sessions", "agents", "pipeline"].includes(page) ? page : "traces", id: "", params };
}

function decode(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

/** Returns the address of a page, without empty parameters. Pure. */
export function address(page: string, id = "", params: Record<string, string | undefined> = {}): string {
  const folder = { trace: "traces", session: "sessions" }[page] ?? page;
  const said = Object.entries(params).filter((pair): pair is [string, string] => !!pair[1]);
  const query = new URLSearchParams(said).toString();
  return `${BASE}/${folder}${id === "" ? "" : `/${encodeURIComponent(id)}`}${query === "" ? "" : `?${query}`}`;
}

/** The current page. */
export const place = signal<Place>({ page: "traces", id: "", params: {} });

/** The previous page. */
export let came: Place = place.value;

const look = () => {
  const to = read(location.pathname, location.search);
  if (to.page !== place.value.page) came = place.value;
  place.value = to;
};

/** Follows the address from now on, and opens links to pages without reloading. */
export function follow(): void {
  look();
  addEventListener("popstate", () => {
    look();
    scrollBack();
  });
  document.addEventListener("click", (event) => {
    const link = (event.target as Element).closest?.("a");
    const isPlain = event.button === 0 && !event.metaKey && !event.ctrlKey && !event.shiftKey;
    if (!link || !isPlain || link.origin !== location.origin || !link.pathname.startsWith(`${BASE}/`)) return;
    event.preventDefault();
    (link.rel === "up" ? leave : go)(link.pathname + link.search);
  });
}

/** Goes to an address; with `replace`, and if it is the current one, the current page is left out of the history. */
export function go(to: string, replace = false): void {
  if (replace || to === location.pathname + location.search) history.replaceState(history.state, "", to);
  else {
    history.replaceState({ ...history.state, scrolled: scroller()?.scrollTop }, "");
    history.pushState({ inside: true }, "", to);
    scroller()?.scrollTo(0, 0);
  }
  look();
}

const scroller = () => document.getElementById("page");

/** Scrolls back to where the page was left, once it is long enough again: its contents are being read. */
function scrollBack(tries = 60): void {
  const top = (history.state as { scrolled?: number } | null)?.scrolled ?? 0;
  const box = scroller();
  box?.scrollTo(0, top);
  if (box && box.scrollTop < top - 1 && tries > 0) requestAnimationFrame(() => scrollBack(tries - 1));
}

/** Changes parameters of this page. */
export function set(params: Record<string, string | undefined>, replace = false): void {
  const { page, id, params: now } = place.value;
  go(address(page, id, { ...now, ...params }), replace);
}

/** Returns whether a page of the console led here. */
export const isInside = () => (history.state as { inside?: boolean } | null)?.inside === true;

/** Goes back to the previous page, or up. */
export function leave(up: string): void {
  if (isInside()) history.back();
  else go(up);
}
