//! Vetting against a resolver that says whatever the test wants: the attacker owns the zone.

use std::collections::VecDeque;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

use keybearer_gate::Target;

use super::*;
use crate::Answers;
use crate::names::Looking;

/// Answers from a script, the last one for ever.
struct Script {
    answers: Mutex<VecDeque<Result<Answers, NameFault>>>,
    asked: AtomicUsize,
}

impl Script {
    fn new(answers: impl IntoIterator<Item = Result<Answers, NameFault>>) -> Arc<Self> {
        Arc::new(Self { answers: Mutex::new(answers.into_iter().collect()), asked: AtomicUsize::new(0) })
    }
}

impl Names for Script {
    fn look_up<'a>(&'a self, _: &'a Host) -> Looking<'a> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let mut answers = self.answers.lock();
        let answer = if answers.len() > 1 { answers.pop_front() } else { answers.front().cloned() };
        Box::pin(std::future::ready(answer.expect("the script has an answer")))
    }
}

/// A resolver that never answers.
struct Silent;

impl Names for Silent {
    fn look_up<'a>(&'a self, _: &'a Host) -> Looking<'a> {
        Box::pin(std::future::pending())
    }
}

fn answer(addresses: &[&str], seconds: u64) -> Result<Answers, NameFault> {
    let addresses = addresses.iter().map(|text| text.parse().expect(text)).collect();
    Ok(Answers { addresses, time_to_live: Duration::from_secs(seconds) })
}

fn destination(url: &str) -> Destination {
    url.parse::<Target>().expect(url).destination().clone()
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(5)
}

async fn vet(config: &EgressConfig, names: Arc<dyn Names>, url: &str) -> Result<SocketAddr, VetFault> {
    let vetter = Vetter::new(config, names).expect("the configuration is good");
    vetter.vet(&destination(url), soon()).await.map(|vetted| vetted.address())
}

const REFUSED: Result<SocketAddr, VetFault> = Err(VetFault::Refused(Refusal::PrivateAddress));

#[tokio::test]
async fn a_public_answer_is_vetted_with_the_destinations_port() {
    let names = Script::new([answer(&["93.184.216.34", "2606:4700::1111"], 60)]);
    let address = vet(&EgressConfig::default(), names, "https://api.example.com:8443/").await;
    assert_eq!(address, Ok("93.184.216.34:8443".parse().expect("address")));
}

#[tokio::test]
async fn n05_one_private_answer_among_public_ones_refuses_the_name() {
    for answers in [
        &["10.0.0.1"][..],
        &["93.184.216.34", "10.0.0.1"],
        &["10.0.0.1", "93.184.216.34"],
        &["93.184.216.34", "fd00::1"],
        &["93.184.216.34", "::ffff:93.184.216.34"],
        &["127.0.0.1"],
        &["169.254.169.254"],
    ] {
        let address = vet(&EgressConfig::default(), Script::new([answer(answers, 60)]), "https://a.example/").await;
        assert_eq!(address, REFUSED, "{answers:?}");
    }
}

#[tokio::test]
async fn n06_a_name_that_rebinds_between_look_ups_is_refused_when_it_turns_private() {
    let names = Script::new([answer(&["93.184.216.34"], 0), answer(&["127.0.0.1"], 0)]);
    let vetter = Vetter::new(&EgressConfig::default(), names.clone()).expect("the configuration is good");
    let place = destination("https://rebind.example/");
    let first = vetter.vet(&place, soon()).await.expect("the first answer is public");
    // What was vetted does not change when the zone does: there is no second look-up before dialling.
    assert_eq!(names.asked.load(Ordering::Relaxed), 1);
    assert_eq!(first.address(), "93.184.216.34:443".parse().expect("address"));
    assert_eq!(vetter.vet(&place, soon()).await.map(|vetted| vetted.address()), REFUSED);
}

#[tokio::test]
async fn an_answer_is_remembered_for_its_time_and_its_demoted_address_comes_last() {
    let names = Script::new([answer(&["93.184.216.34", "93.184.216.35"], 60)]);
    let vetter = Vetter::new(&EgressConfig::default(), names.clone()).expect("the configuration is good");
    let place = destination("https://a.example/");
    let first = vetter.vet(&place, soon()).await.expect("vetted");
    vetter.demote(&first);
    let second = vetter.vet(&place, soon()).await.expect("vetted");
    assert_eq!(second.address().ip(), "93.184.216.35".parse::<IpAddr>().expect("address"));
    assert_eq!(names.asked.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_shuffled_answer_does_not_move_the_address_in_use() {
    let (a, b) = ("93.184.216.34", "93.184.216.35");
    let names = Script::new([answer(&[a, b], 0), answer(&[b, a], 0), answer(&[b], 0)]);
    let vetter = Vetter::new(&EgressConfig::default(), names).expect("the configuration is good");
    let place = destination("https://a.example/");
    for expected in [a, a, b] {
        let vetted = vetter.vet(&place, soon()).await.expect("vetted");
        assert_eq!(vetted.address().ip(), expected.parse::<IpAddr>().expect("address"));
    }
}

#[tokio::test]
async fn n09_failures_of_the_name_servers_are_typed_and_bounded() {
    for (fault, expected) in [
        (NameFault::Unknown, VetFault::Refused(Refusal::UnknownName)),
        (NameFault::Failed, VetFault::Unresolvable),
        (NameFault::TimedOut, VetFault::TimedOut),
    ] {
        let address = vet(&EgressConfig::default(), Script::new([Err(fault)]), "https://a.example/").await;
        assert_eq!(address, Err(expected));
    }
    let mut config = EgressConfig::default();
    config.deadlines.resolve = Duration::from_millis(20);
    assert_eq!(vet(&config, Arc::new(Silent), "https://a.example/").await, Err(VetFault::TimedOut));
}

#[tokio::test]
async fn n33_g21_our_own_listeners_are_not_destinations() {
    let own_listeners = vec!["93.184.216.34:443".parse().expect("address")];
    let mut config = EgressConfig { own_listeners, ..EgressConfig::default() };
    let names = Script::new([answer(&["93.184.216.34"], 60)]);
    let own = Err(VetFault::Refused(Refusal::SelfConnection));
    assert_eq!(vet(&config, names.clone(), "https://a.example/").await, own);
    assert!(vet(&config, names, "https://a.example:8443/").await.is_ok());

    // A listener on every address is found behind each address of this machine, even an allowed one.
    config.own_listeners = vec!["0.0.0.0:443".parse().expect("address")];
    config.dangerous.allow_ranges = vec!["127.0.0.0/8".parse().expect("range")];
    let names = Script::new([answer(&["127.0.0.1"], 60)]);
    assert_eq!(vet(&config, names.clone(), "https://a.example/").await, own);
    assert!(vet(&config, names, "https://a.example:8443/").await.is_ok());
}

#[tokio::test]
async fn only_the_operator_opens_a_range_and_only_that_range() {
    let mut config = EgressConfig::default();
    config.dangerous.allow_ranges = vec!["10.1.0.0/16".parse().expect("range")];
    assert!(vet(&config, Script::new([answer(&["10.1.2.3"], 60)]), "https://a.example/").await.is_ok());
    assert_eq!(vet(&config, Script::new([answer(&["10.2.2.3"], 60)]), "https://a.example/").await, REFUSED);
    // The IPv6 spelling of an allowed address is another address.
    assert_eq!(vet(&config, Script::new([answer(&["::ffff:10.1.2.3"], 60)]), "https://a.example/").await, REFUSED);
}

#[tokio::test]
async fn a_pin_stands_for_one_host_and_port_and_does_not_open_a_range_by_itself() {
    let mut config = EgressConfig::default();
    let pin = |address: &str| Pin {
        host: "api.example.com".parse().expect("host"),
        port: 443,
        address: address.parse().expect("address"),
    };
    config.dangerous.pin = vec![pin("127.0.0.1:4443")];
    assert!(matches!(Vetter::new(&config, Arc::new(Silent)), Err(ConfigInvalid::PinNotAllowed { .. })));
    config.dangerous.allow_ranges = vec!["127.0.0.0/8".parse().expect("range")];
    let names = Script::new([answer(&["93.184.216.34"], 60)]);
    let address = vet(&config, names.clone(), "https://api.example.com/").await;
    assert_eq!(address, Ok("127.0.0.1:4443".parse().expect("address")));
    let address = vet(&config, names, "https://api.example.com:8443/").await;
    assert_eq!(address, Ok("93.184.216.34:8443".parse().expect("address")));
}
