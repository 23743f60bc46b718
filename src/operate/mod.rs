//! What was set aside, and what an operator does with it and with the journal: the same commands over HTTP and on the command line.
//!
//! The dead letters and the quarantine are stores (`store.rs`) of the same kind. A replay (`replay.rs`) reads a store or a range of the
//! main journal with a filter, and hands what it finds to a sink's lane, which treats it like anything else but moves no cursor. What
//! arrived is noted in the store, behind what it speaks of. A reload (`reload.rs`) is handed to the daemon that runs. [`Operator`] carries out commands, on a running daemon and on a
//! directory that no daemon has.

mod command;
mod look;
mod operator;
mod reload;
mod replay;
mod store;

pub use command::{
    Census, CommandError, DropRequest, Dropped, EntryView, Group, ListRequest, Listed, Progress,
    ReceiverCensus, ReplayEntriesRequest, ReplayJournalRequest, Replayed, Reply, ShowRequest,
    Which, Working,
};
pub use look::brief;
pub use look::{
    DeliveryRequest, Fate, Form, Link, SinkLedger, SpanView, StatsRequest, TraceRequest, TraceView,
    TracesRequest, Turn, Verified, VerifyRequest, WhichTraces, dollars_text, duration_text,
    one_line, tree_text,
};
pub use operator::{Command, Needs, Operator, Replays};
pub use reload::{Asked, Rebuilt, RefusedReload, ReloadRequest, Reloaded, Reloads, Reread};
pub use replay::{drop_entries, receive_entries, replay_entries, replay_journal};
pub use store::{Entry, Range, Resolver, Selection, Store};

#[cfg(test)]
mod replay_tests;
