//! Arguments, printing, exit codes.

use std::path::PathBuf;

use crate::config::{Environment, Request, load};
use crate::daemon::Daemon;
use crate::support::stop::Stop;

/// Runs the command line.
pub fn run() -> anyhow::Result<()> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let files = std::env::args().skip_while(|word| word != "-c").skip(1).map(PathBuf::from);
        let request = Request { files: files.collect(), ..Request::default() };
        let loaded = load(&request, &Environment::of_process())
            .map_err(|report| anyhow::anyhow!("{report:?}"))?;
        let daemon = Daemon::build(loaded.config).await?;
        let stop = Stop::default();
        let signal = stop.clone();
        tokio::spawn(async move {
            let mut term =
                tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).unwrap();
            tokio::select! { _ = tokio::signal::ctrl_c() => {}, _ = term.recv() => {} }
            signal.stop();
        });
        daemon.run(stop).await
    })
}
