//! Arguments, printing, exit codes.

use std::path::PathBuf;

use tokio::net::TcpListener;

use crate::daemon;
use crate::support::stop::Stop;

/// Runs the command line.
pub fn run() -> anyhow::Result<()> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let http = TcpListener::bind("127.0.0.1:4318").await?;
        let stop = Stop::default();
        let signal = stop.clone();
        tokio::spawn(async move {
            tokio::signal::ctrl_c().await.ok();
            signal.stop();
        });
        daemon::run(PathBuf::from("state"), http, stop).await
    })
}
