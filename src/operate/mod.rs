//! Dead letters and quarantine, and operator commands on these and on the journal: the same commands over HTTP and on the command line.
//!
//! Dead letters and quarantine are stores (`store.rs`) of the same kind. A replay (`replay.rs`) reads a store or a range of the main
//! journal with a filter and passes the items to a sink's lane, which treats them like any others but moves no cursor. Resolutions are
//! appended to the store, after the entries that they refer to. A reload (`reload.rs`) is passed to the running daemon. [`Operator`]
//! carries out commands, in a running daemon or on a directory that no daemon has open.

mod command;
mod look;
mod operator;
mod reload;
mod replay;
mod store;

pub use command::{
    CommandError, DropRequest, Dropped, EntryView, Group, ItemCount, ListRequest, Listed, Progress,
    ReceiverCensus, ReplayEntriesRequest, ReplayJournalRequest, Replayed, Reply, ShowRequest,
    Which, Working,
};
pub use look::brief;
pub use look::{
    DeliveryRequest, Form, Link, SinkLedger, SinkOutcome, SpanView, StatsRequest, TRACE,
    TraceRequest, TraceView, TracesRequest, Turn, Verified, VerifyRequest, WhichTraces, counts,
    dollars, gaps, one_line, rows_table, traces_table, tree_text, verified_text,
};
pub use operator::{Command, Needs, Operator, Replays};
pub use reload::{Asked, Rebuilt, RefusedReload, ReloadRequest, Reloaded, Reloads, Reread};
pub use replay::{drop_entries, receive_entries, replay_entries, replay_journal};
pub use store::{Entry, Range, Resolver, Selection, Store};

#[cfg(test)]
mod replay_tests;
