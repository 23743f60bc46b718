//! The receivers over real connections, into a journal in memory.

mod world;
mod samples;
mod answers;
mod astray;
mod limits;
mod estimate;
mod connections;
mod grpc;
mod tenants;
