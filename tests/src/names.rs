//! A name server on loopback, UDP and TCP, that answers what the case says and remembers what it was asked
//! (RFC 1035). As small as it can be: one question, addresses or an alias.

use std::net::IpAddr;
use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::io::AsyncReadExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;
use tokio::net::UdpSocket;

/// What a name comes to.
#[derive(Debug, Clone)]
pub enum NameAnswer {
    /// These addresses of either family, to be kept for no time.
    Addresses(Vec<IpAddr>),
    /// Another name, and its addresses.
    Alias(String, Vec<IpAddr>),
    /// NXDOMAIN
    NoSuchName,
    /// SERVFAIL
    Failure,
    /// Nothing at all.
    Silence,
}

type Answering = dyn Fn(&str, usize) -> NameAnswer + Send + Sync;

/// A name server that runs until it is dropped.
pub struct NameServer {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
    tasks: [tokio::task::JoinHandle<()>; 2],
}

const A: u16 = 1;
const CNAME: u16 = 5;
const AAAA: u16 = 28;

/// What is longer than this is cut, and asked for again over TCP (RFC 1035 §4.2.1).
const DATAGRAM_BYTES_MAX: usize = 512;

impl NameServer {
    /// Starts one. `answer` hears the name and how many questions for an A record of it came before.
    ///
    /// # Errors
    /// If loopback cannot be listened on.
    pub async fn start(answer: impl Fn(&str, usize) -> NameAnswer + Send + Sync + 'static) -> anyhow::Result<Self> {
        let (datagrams, streams) = listen().await?;
        let address = datagrams.local_addr()?;
        let asked = Arc::new(Mutex::new(Vec::new()));
        let shared = Arc::new(Shared { asked: Arc::clone(&asked), answer: Box::new(answer) });
        let also = Arc::clone(&shared);
        let tasks = [
            tokio::spawn(async move {
                let mut question = [0; 4096];
                while let Ok((length, peer)) = datagrams.recv_from(&mut question).await {
                    let Some(mut answer) = shared.reply(&question[..length]) else { continue };
                    if answer.len() > DATAGRAM_BYTES_MAX {
                        let question_end = read_name(&answer).map_or(12, |(_, end)| end + 4);
                        answer.truncate(question_end);
                        // TC, and no record of an answer.
                        answer[2] |= 2;
                        answer[6..8].fill(0);
                    }
                    // Whoever asked may be gone.
                    drop(datagrams.send_to(&answer, peer).await);
                }
            }),
            tokio::spawn(async move {
                while let Ok((mut stream, _)) = streams.accept().await {
                    let shared = Arc::clone(&also);
                    tokio::spawn(async move {
                        while let Ok(length) = stream.read_u16().await {
                            let mut question = vec![0; usize::from(length)];
                            if stream.read_exact(&mut question).await.is_err() {
                                return;
                            }
                            let Some(answer) = shared.reply(&question) else { return };
                            let Ok(length) = u16::try_from(answer.len()) else { return };
                            let framed = [&length.to_be_bytes()[..], &answer].concat();
                            if stream.write_all(&framed).await.is_err() {
                                return;
                            }
                        }
                    });
                }
            }),
        ];
        Ok(Self { address, asked, tasks })
    }

    /// Where it listens, for `egress.nameservers`.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The names whose A records were asked for, in order.
    #[must_use]
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().clone()
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.tasks.iter().for_each(tokio::task::JoinHandle::abort);
    }
}

/// A port that is free for both: one that the kernel chose for datagrams may be taken for streams.
async fn listen() -> anyhow::Result<(UdpSocket, TcpListener)> {
    const TRIES_MAX: usize = 64;
    for _ in 0..TRIES_MAX {
        let datagrams = UdpSocket::bind("127.0.0.1:0").await?;
        match TcpListener::bind(datagrams.local_addr()?).await {
            Ok(streams) => return Ok((datagrams, streams)),
            Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {}
            Err(error) => return Err(error.into()),
        }
    }
    anyhow::bail!("no port is free for datagrams and for streams")
}

struct Shared {
    asked: Arc<Mutex<Vec<String>>>,
    answer: Box<Answering>,
}

impl Shared {
    fn reply(&self, question: &[u8]) -> Option<Vec<u8>> {
        let (name, end) = read_name(question)?;
        let kind = u16::from_be_bytes([*question.get(end)?, *question.get(end + 1)?]);
        let before = {
            let mut asked = self.asked.lock();
            let before = asked.iter().filter(|other| **other == name).count();
            if kind == A {
                asked.push(name.clone());
            }
            before
        };
        let (code, records) = match (self.answer)(&name, before) {
            NameAnswer::Silence => return None,
            NameAnswer::Failure => (2, Vec::new()),
            NameAnswer::NoSuchName => (3, Vec::new()),
            NameAnswer::Addresses(addresses) => (0, addresses_of(&name, kind, &addresses)),
            NameAnswer::Alias(alias, addresses) => {
                let first = record(&name, CNAME, &write_name(&alias));
                (0, [vec![first], addresses_of(&alias, kind, &addresses)].concat())
            }
        };
        let count = u16::try_from(records.len()).ok()?;
        // The id; QR, RD, RA and the code; one question, so many answers.
        let mut reply = question.get(..2)?.to_vec();
        reply.extend([0x81, 0x80 | code, 0, 1]);
        reply.extend(count.to_be_bytes());
        reply.extend([0; 4]);
        reply.extend(question.get(12..end + 4)?);
        records.iter().for_each(|record| reply.extend(record));
        Some(reply)
    }
}

fn addresses_of(name: &str, kind: u16, addresses: &[IpAddr]) -> Vec<Vec<u8>> {
    let fitting = addresses.iter().filter_map(|address| match address {
        IpAddr::V4(address) if kind == A => Some(record(name, A, &address.octets())),
        IpAddr::V6(address) if kind == AAAA => Some(record(name, AAAA, &address.octets())),
        _ => None,
    });
    fitting.collect()
}

/// A record of class IN with a time to live of 0.
fn record(name: &str, kind: u16, data: &[u8]) -> Vec<u8> {
    let mut record = write_name(name);
    record.extend(kind.to_be_bytes());
    record.extend([0, 1, 0, 0, 0, 0]);
    record.extend(u16::try_from(data.len()).unwrap_or(0).to_be_bytes());
    record.extend(data);
    record
}

fn write_name(name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for label in name.trim_end_matches('.').split('.') {
        bytes.push(u8::try_from(label.len()).unwrap_or(0));
        bytes.extend(label.bytes());
    }
    bytes.push(0);
    bytes
}

/// The name of the first question, without its final dot, and where it ends.
fn read_name(question: &[u8]) -> Option<(String, usize)> {
    let mut labels = Vec::new();
    let mut at = 12;
    loop {
        let length = usize::from(*question.get(at)?);
        at += 1;
        if length == 0 {
            return Some((labels.join(".").to_ascii_lowercase(), at));
        }
        labels.push(String::from_utf8_lossy(question.get(at..at + length)?).into_owned());
        at += length;
    }
}
