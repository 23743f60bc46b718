// The console: the current page, and the frame around it.
import { render } from "preact";
import { useEffect, useRef } from "preact/hooks";
import { asksToken, giveToken, hasToken } from "./api";
import { AgentsPage } from "./agents";
import { useKeys } from "./parts";
import { PipelinePage } from "./pipeline";
import { address, follow, place } from "./route";
import { SessionPage, SessionsPage } from "./sessions";
import { TracePage } from "./trace";
import { TracesPage } from "./traces";

const PAGES: Record<string, () => preact.JSX.Element> = {
  traces: TracesPage,
  trace: TracePage,
  sessions: SessionsPage,
  session: SessionPage,
  agents: AgentsPage,
  pipeline: PipelinePage,
};

const LINKS = [
  ["traces", "Traces", "trace"],
  ["sessions", "Sessions", "session"],
  ["agents", "Agents", ""],
  ["pipeline", "Pipeline", ""],
] as const;

const KEYS: [string, string][] = [
  ["j  k", "next and previous row"],
  ["Enter", "open the trace"],
  ["Esc", "back"],
  ["/", "to the filter or the search"],
  ["n", "in the list: show what is new; in a trace: next error"],
  ["p", "previous error"],
  ["[  ]", "fold and unfold all"],
  ["Arrows", "in the tree: move, fold and unfold"],
  ["?", "this help"],
];

function App() {
  const { page } = place.value;
  const help = useRef<HTMLDialogElement>(null);
  const Page = PAGES[page] ?? TracesPage;
  useKeys({
    "?": () => help.current?.showModal(),
    "/": () => document.querySelector<HTMLInputElement>("input[type=search]")?.focus(),
  });
  return (
    <>
      <a class="skip" href="#page">Skip to content</a>
      <nav aria-label="Pages">
        <a class="brand" href={address("traces")}>
          <img src="/ui/icon.svg" alt="" width="20" height="20" /> Spanferry
        </a>
        {LINKS.map(([to, name, below]) => (
          <a key={to} href={address(to)} {...(page === to || page === below ? { "aria-current": "page" as const } : {})}>{name}</a>
        ))}
        <span class="gap" />
        <button type="button" class="help" aria-label="Keyboard help" onClick={() => help.current?.showModal()}>?</button>
      </nav>
      <div id="page" tabIndex={-1}><Page /></div>
      <dialog ref={help} aria-labelledby="help">
        <h2 id="help">Keyboard</h2>
        <table class="attributes">
          <tbody>
            {KEYS.map(([key, what]) => (
              <tr key={key}><th scope="row"><kbd>{key}</kbd></th><td>{what}</td></tr>
            ))}
          </tbody>
        </table>
        <form method="dialog"><button class="main">Close</button></form>
      </dialog>
      {asksToken.value && <TokenDialog />}
    </>
  );
}

function TokenDialog() {
  const dialog = useRef<HTMLDialogElement>(null);
  const field = useRef<HTMLInputElement>(null);
  useEffect(() => dialog.current?.showModal(), []);
  return (
    <dialog ref={dialog} aria-labelledby="token" onCancel={(event) => event.preventDefault()}>
      <h2 id="token">Sign in</h2>
      <p>Enter one of <code>admin.tokens</code>. It is kept until this tab is closed.</p>
      {hasToken() && <p class="problem" role="alert">The token is not valid.</p>}
      <form
        onSubmit={(event) => {
          event.preventDefault();
          giveToken(field.current?.value.trim() ?? "");
        }}
      >
        <input ref={field} type="password" aria-label="Token" autocomplete="off" required />
        <button type="submit" class="main">Sign in</button>
      </form>
    </dialog>
  );
}

follow();
render(<App />, document.body);
