//! The resolver against a name server that is written by hand, byte by byte.

use std::net::Ipv4Addr;
use std::net::Ipv6Addr;
use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::net::UdpSocket;

use super::*;

/// What the name server says to a question of this type; nothing is silence.
struct Said {
    code: u8,
    addresses: Vec<IpAddr>,
    seconds: u32,
}

fn said(code: u8, addresses: &[&str]) -> Option<Said> {
    Some(Said { code, addresses: addresses.iter().map(|text| text.parse().expect(text)).collect(), seconds: 7 })
}

const A: u16 = 1;

struct NameServer {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
}

impl NameServer {
    /// `says` is given the type of the question: 1 is A, 28 is AAAA.
    async fn start(says: impl Fn(u16) -> Option<Said> + Send + 'static) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
        let address = socket.local_addr().expect("address");
        let asked = Arc::new(Mutex::new(Vec::new()));
        let server = Self { address, asked: asked.clone() };
        tokio::spawn(async move {
            let mut packet = [0; 1500];
            while let Ok((length, peer)) = socket.recv_from(&mut packet).await {
                let (name, end) = question(&packet[12..length]);
                let question = &packet[12..12 + end];
                asked.lock().push(name);
                let kind = u16::from_be_bytes([question[end - 4], question[end - 3]]);
                if let Some(said) = says(kind) {
                    let answer = packet_of([packet[0], packet[1]], question, &said);
                    socket.send_to(&answer, peer).await.expect("sent");
                }
            }
        });
        server
    }

    fn dns(&self) -> Dns {
        let mut config = EgressConfig { nameservers: vec![self.address], ..EgressConfig::default() };
        config.deadlines.resolve = Duration::from_millis(400);
        Dns::new(&config).expect("a resolver")
    }

    async fn look_up(&self, host: &str) -> Result<Answers, NameFault> {
        self.dns().look_up(&host.parse().expect(host)).await
    }
}

/// The name of a question, with its final dot, and the length of the question.
fn question(bytes: &[u8]) -> (String, usize) {
    let mut name = String::new();
    let mut at = 0;
    while bytes[at] != 0 {
        let length = usize::from(bytes[at]);
        name.push_str(std::str::from_utf8(&bytes[at + 1..=at + length]).expect("ASCII"));
        name.push('.');
        at += length + 1;
    }
    (name, at + 5)
}

fn packet_of(id: [u8; 2], question: &[u8], said: &Said) -> Vec<u8> {
    let count = u16::try_from(said.addresses.len()).expect("few").to_be_bytes();
    let mut packet = vec![id[0], id[1], 0x81, 0x80 | said.code, 0, 1, count[0], count[1], 0, 0, 0, 0];
    packet.extend_from_slice(question);
    for address in &said.addresses {
        packet.extend_from_slice(&[0xc0, 12]);
        let (kind, bytes) = match address {
            IpAddr::V4(address) => (1, address.octets().to_vec()),
            IpAddr::V6(address) => (28, address.octets().to_vec()),
        };
        packet.extend_from_slice(&[0, kind, 0, 1]);
        packet.extend_from_slice(&said.seconds.to_be_bytes());
        packet.extend_from_slice(&u16::try_from(bytes.len()).expect("short").to_be_bytes());
        packet.extend_from_slice(&bytes);
    }
    packet
}

#[tokio::test]
async fn n08_a_name_is_asked_for_as_it_is_in_both_families_and_never_with_a_suffix() {
    let server = NameServer::start(|kind| match kind {
        A => said(0, &["93.184.216.34"]),
        _ => said(0, &["2606:4700::1111"]),
    })
    .await;
    let answers = server.look_up("api.example").await.expect("answers");
    let expected =
        [IpAddr::V4(Ipv4Addr::new(93, 184, 216, 34)), IpAddr::V6(Ipv6Addr::new(0x2606, 0x4700, 0, 0, 0, 0, 0, 0x1111))];
    assert_eq!(answers.addresses, expected);
    assert!(answers.time_to_live <= Duration::from_secs(7) && answers.time_to_live > Duration::from_secs(5));
    assert_eq!(*server.asked.lock(), ["api.example."; 2]);
}

#[tokio::test]
async fn n08_names_of_this_machine_are_this_machine_whatever_the_dns_says() {
    let server = NameServer::start(|_| said(0, &["93.184.216.34"])).await;
    let answers = server.look_up("api.localhost").await.expect("answers");
    assert!(answers.addresses.iter().all(IpAddr::is_loopback));
    assert!(server.asked.lock().is_empty());
}

#[tokio::test]
async fn n05_an_answer_in_one_family_only_is_an_answer() {
    let server = NameServer::start(|kind| if kind == A { said(0, &["10.0.0.1"]) } else { said(0, &[]) }).await;
    assert_eq!(server.look_up("a.example").await.expect("answers").addresses, [IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1))]);
}

#[tokio::test]
async fn n09_the_failures_of_name_servers_are_told_apart() {
    for (code, expected) in
        [(3, NameFault::Unknown), (0, NameFault::Unknown), (2, NameFault::Failed), (5, NameFault::Failed)]
    {
        let server = NameServer::start(move |_| said(code, &[])).await;
        assert_eq!(server.look_up("a.example").await, Err(expected), "{code}");
    }
    let silent = NameServer::start(|_| None).await;
    assert_eq!(silent.look_up("a.example").await, Err(NameFault::TimedOut));
}

#[tokio::test]
async fn n09_more_addresses_than_a_service_has_are_refused() {
    let many: Vec<String> = (1..=ADDRESSES_MAX + 1).map(|number| format!("93.184.216.{number}")).collect();
    let server = NameServer::start(move |kind| {
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        if kind == A { said(0, &many) } else { said(0, &[]) }
    })
    .await;
    assert_eq!(server.look_up("a.example").await, Err(NameFault::Failed));
}
