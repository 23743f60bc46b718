//! Other clients at the daemon's port while a load is measured: their connections use resources and send nothing useful.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

/// The behaviour of these clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Strangers {
    /// Two connections announce a body of 64 MiB each and send none of it.
    Announcing,
    /// 2,000 connections send nothing.
    Idle,
    /// 100 connections send a byte of their body every 100 ms.
    Slow,
    /// One connection begins 2,000 HTTP/2 streams a second and resets each immediately.
    Resetting,
}

impl Strangers {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Announcing => "two connections that announce 64 MiB",
            Self::Idle => "2,000 idle connections",
            Self::Slow => "100 slow bodies",
            Self::Resetting => "2,000 resets a second",
        }
    }

    fn connections(self) -> usize {
        match self {
            Self::Announcing => 2,
            Self::Idle => 2_000,
            Self::Slow => 100,
            Self::Resetting => 1,
        }
    }

    /// Starts these clients on a separate thread, so that they do not delay the measurement, until the returned value is dropped.
    pub(crate) fn come(self, address: SocketAddr) -> io::Result<Presence> {
        let (go, gone) = oneshot::channel::<()>();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let thread = std::thread::spawn(move || {
            runtime.block_on(async {
                let mut all = JoinSet::new();
                (0..self.connections()).for_each(|_| {
                    all.spawn(self.stay(address));
                });
                gone.await.ok();
            });
        });
        Ok(Presence { go: Some(go), thread: Some(thread) })
    }

    /// Connects again whenever the connection is closed.
    async fn stay(self, address: SocketAddr) {
        const AGAIN_AFTER: Duration = Duration::from_secs(1);
        loop {
            if let Ok(mut stream) = TcpStream::connect(address).await {
                self.act(&mut stream).await.ok();
            }
            tokio::time::sleep(AGAIN_AFTER).await;
        }
    }

    async fn act(self, stream: &mut TcpStream) -> io::Result<()> {
        const ANNOUNCED: &[u8] = b"POST /v1/traces HTTP/1.1\r\nhost: localhost\r\n\
            content-type: application/x-protobuf\r\ncontent-length: 67108864\r\n\r\n";
        match self {
            Self::Announcing => stream.write_all(ANNOUNCED).await?,
            Self::Idle => {}
            Self::Slow => {
                stream.write_all(ANNOUNCED).await?;
                loop {
                    stream.write_all(b"x").await?;
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
            Self::Resetting => return reset(stream).await,
        }
        // Until the server closes the connection.
        while stream.read(&mut [0; 1024]).await? != 0 {}
        Ok(())
    }
}

/// Begins streams and resets them (RFC 9113, sections 6.2 and 6.4).
async fn reset(stream: &mut TcpStream) -> io::Result<()> {
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00";
    // POST, http, the path as a literal, the authority as a literal: by the static table of RFC 7541.
    const FIELDS: &[u8] = b"\x83\x86\x04\x0a/v1/traces\x01\x09localhost";
    const STREAMS_A_TURN: u32 = 20;
    const TURN: Duration = Duration::from_millis(10);
    let (mut from, mut to) = stream.split();
    let sends = async {
        to.write_all(PREFACE).await?;
        let mut turn = tokio::time::interval(TURN);
        for first in (1..).step_by(2 * STREAMS_A_TURN as usize) {
            turn.tick().await;
            let mut frames = Vec::new();
            for id in (first..).step_by(2).take(STREAMS_A_TURN as usize) {
                frame(&mut frames, 1, 4, id, FIELDS);
                frame(&mut frames, 3, 0, id, &8_u32.to_be_bytes());
            }
            to.write_all(&frames).await?;
        }
        Ok(())
    };
    let reads = async {
        while from.read(&mut [0; 4096]).await? != 0 {}
        Ok(())
    };
    tokio::select! { ended = sends => ended, ended = reads => ended }
}

fn frame(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    let length = u32::try_from(payload.len()).unwrap_or_default().to_be_bytes();
    out.extend_from_slice(&length[1..]);
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(payload);
}

/// Keeps the clients running; stops them when dropped.
pub(crate) struct Presence {
    go: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Drop for Presence {
    fn drop(&mut self) {
        drop(self.go.take());
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}
