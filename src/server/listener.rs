//! Listeners: a port, or a Unix socket whose file exists only while the daemon listens.

use std::fs;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener as StdListener, UnixStream as StdStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::time::timeout;

use super::Peer;
use super::tls::{HandshakeError, Tls};
use crate::support::address::Address;

/// Time limit of a TLS handshake, which takes two round trips.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// The first byte of TLS: a handshake record (RFC 8446, 5.1). HTTP never begins with it.
const HANDSHAKE_RECORD: u8 = 22;
/// The answer to plain HTTP on a TLS port.
const PLAIN_ANSWER: &[u8] =
    b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\nconnection: close\r\n\r\n\
    this port speaks TLS: use https://\n";
/// Amount of the request to read before closing: closing with unread data would discard the answer.
const PLAIN_BYTES_MAX: u64 = 64 << 10;

/// A listening socket.
#[derive(Debug)]
pub struct Listener(Socket);

#[derive(Debug)]
enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener, SocketFile),
}

/// An accepted connection on which nothing was read yet.
pub(super) enum Accepted {
    Tcp(TcpStream, SocketAddr),
    Unix(UnixStream),
}

/// A byte stream for HTTP.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

impl Listener {
    /// Listens on an address.
    pub async fn bind(address: &Address) -> io::Result<Self> {
        match address {
            Address::Tcp(address) => TcpListener::bind(address).await.map(Socket::Tcp),
            Address::Unix { path, mode } => listen_on_file(path, *mode),
        }
        .map(Self)
    }

    /// Returns its address, with the actual port if 0 was requested.
    pub fn address(&self) -> io::Result<Address> {
        match &self.0 {
            Socket::Tcp(listener) => listener.local_addr().map(Address::Tcp),
            Socket::Unix(_, file) => Ok(Address::Unix { path: file.path.clone(), mode: file.mode }),
        }
    }

    pub(super) async fn accept(&self) -> io::Result<Accepted> {
        Ok(match &self.0 {
            Socket::Tcp(listener) => {
                let (stream, address) = listener.accept().await?;
                Accepted::Tcp(stream, address)
            }
            Socket::Unix(listener, _) => Accepted::Unix(listener.accept().await?.0),
        })
    }
}

impl Accepted {
    /// Prepares a connection for HTTP: a TCP connection is encrypted if `tls` is given.
    pub(super) async fn open(
        self,
        tls: Option<&Tls>,
    ) -> Result<(Box<dyn Stream>, Peer), HandshakeError> {
        let (stream, address) = match self {
            Self::Unix(stream) => return Ok((Box::new(stream), Peer::default())),
            Self::Tcp(stream, address) => (stream, address),
        };
        // Answers are small and clients wait for them, so they must not be delayed for more data.
        stream.set_nodelay(true).ok();
        let peer = Peer { address: Some(address), ..Peer::default() };
        let Some(tls) = tls else { return Ok((Box::new(stream), peer)) };
        let handshake = async {
            if !begins_with_handshake(&stream).await? {
                refuse_plain(stream).await.ok();
                return Err(HandshakeError::Plain);
            }
            let (stream, certificate) = tls.accept(stream).await?;
            let stream: Box<dyn Stream> = Box::new(stream);
            Ok((stream, Peer { is_encrypted: true, certificate, ..peer }))
        };
        timeout(HANDSHAKE_TIMEOUT, handshake).await.unwrap_or(Err(HandshakeError::Slow))
    }
}

/// Peeks at the first byte.
async fn begins_with_handshake(stream: &TcpStream) -> io::Result<bool> {
    let mut first = [0];
    match stream.peek(&mut first).await? {
        0 => Err(ErrorKind::UnexpectedEof.into()),
        _ => Ok(first == [HANDSHAKE_RECORD]),
    }
}

async fn refuse_plain(mut stream: TcpStream) -> io::Result<()> {
    stream.write_all(PLAIN_ANSWER).await?;
    stream.shutdown().await?;
    tokio::io::copy(&mut stream.take(PLAIN_BYTES_MAX), &mut tokio::io::sink()).await?;
    Ok(())
}

// === Unix sockets ===

/// A socket's file, removed when this is dropped.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    mode: u32,
    /// Its device and inode: another daemon may have replaced the file.
    identity: (u64, u64),
}

/// Listens on a socket file. A file left by a daemon that is gone is replaced; a socket in use and other files are not.
fn listen_on_file(path: &Path, mode: u32) -> io::Result<Socket> {
    // The socket gets its mode under a temporary name, so that no client connects before the mode is set.
    let fresh = path.with_extension(format!("new-{}", std::process::id()));
    remove(&fresh)?;
    let listener = StdListener::bind(&fresh)?;
    let placed = place(&fresh, path, mode);
    if placed.is_err() {
        remove(&fresh)?;
    }
    let identity = placed?;
    let file = SocketFile { path: path.to_owned(), mode, identity };
    listener.set_nonblocking(true)?;
    Ok(Socket::Unix(UnixListener::from_std(listener)?, file))
}

/// Moves a socket's file into place. Returns its identity.
fn place(fresh: &Path, path: &Path, mode: u32) -> io::Result<(u64, u64)> {
    fs::set_permissions(fresh, fs::Permissions::from_mode(mode))?;
    match fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => {
            return Err(io::Error::new(
                ErrorKind::AlreadyExists,
                "a file that is not a socket is in the way",
            ));
        }
        Ok(_) if StdStream::connect(path).is_ok() => return Err(ErrorKind::AddrInUse.into()),
        Ok(_) | Err(_) => {}
    }
    fs::rename(fresh, path)?;
    identity(path)
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|found| (found.dev(), found.ino()))
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|found| found == self.identity) {
            fs::remove_file(&self.path).ok();
        }
    }
}
