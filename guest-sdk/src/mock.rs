//! A host for unit tests: answers by closures, records what the tool sent. Not a model of the host's
//! policy: it knows neither manifest nor grants, and signs nothing ([`Host::signs`]). But like the host it refuses a URL that is not
//! canonical and header fields that can never be a tool's, and answers `denied` to what nobody
//! expected.
//!
//! ```
//! use keybearer_guest::http;
//! use keybearer_guest::http::{Method, Response};
//! use keybearer_guest::mock::Host;
//!
//! let host = Host::new().on(Method::Get, "https://api.example.com/v1/time", |_| Response::new(204));
//! let status = host.run(|| http::get("https://api.example.com/v1/time").send().map(|answer| answer.status()));
//! assert_eq!(status.ok(), Some(204));
//! assert_eq!(host.requests().len(), 1);
//! ```

mod request;
mod rules;
mod signing;

use std::cell::RefCell;
use std::rc::Rc;

use crate::call::Context;
use crate::http::Error;
use crate::http::Method;
use crate::http::Parts;
use crate::http::Response;
use crate::log::Level;

pub use request::Request;
pub use signing::Signing;
pub(crate) use signing::jwt;
pub(crate) use signing::mac;
pub(crate) use signing::presign;

/// What a closure of [`Host::on`] gives back: a [`Response`], or a `Result` of one.
pub trait Answer {
    /// The answer, as the tool will see it.
    ///
    /// # Errors
    /// Whatever the test wants the tool to hear.
    fn answer(self) -> Result<Response, Error>;
}

impl Answer for Response {
    fn answer(self) -> Result<Response, Error> {
        Ok(self)
    }
}

impl Answer for Result<Response, Error> {
    fn answer(self) -> Result<Response, Error> {
        self
    }
}

type Handler = Box<dyn Fn(&Request) -> Result<Response, Error>>;

struct Expected {
    method: Method,
    url: String,
    handler: Handler,
}

/// A mock host.
pub struct Host {
    state: Rc<State>,
}

struct State {
    expected: Vec<Expected>,
    base_urls: Vec<(String, String)>,
    context: Context,
    requests: RefCell<Vec<Request>>,
    signers: Vec<(String, signing::Signer)>,
    signings: RefCell<Vec<Signing>>,
    lines: RefCell<Vec<(Level, String)>>,
}

thread_local! {
    /// The host of the test that runs on this thread. A test has a thread of its own, and nothing of
    /// this exists in a component.
    static RUNNING: RefCell<Vec<Rc<State>>> = const { RefCell::new(Vec::new()) };
}

impl Default for Host {
    fn default() -> Self {
        Self::new()
    }
}

impl Host {
    /// A host that refuses everything.
    #[must_use]
    pub fn new() -> Self {
        let context = Context { call_id: "call_mock".to_owned(), remaining_ms: 30_000, attempt: 1 };
        Self {
            state: Rc::new(State {
                expected: Vec::new(),
                base_urls: Vec::new(),
                context,
                requests: RefCell::default(),
                signers: Vec::new(),
                signings: RefCell::default(),
                lines: RefCell::default(),
            }),
        }
    }

    /// Answers requests of this method and URL. A URL without a query stands for every query; the
    /// first that fits answers.
    #[must_use]
    pub fn on<A: Answer>(mut self, method: Method, url: &str, answer: impl Fn(&Request) -> A + 'static) -> Self {
        let handler: Handler = Box::new(move |request| answer(request).answer());
        self.state_mut().expected.push(Expected { method, url: url.to_owned(), handler });
        self
    }

    /// Fixes a slot's base URL, as a grant does.
    #[must_use]
    pub fn base_url(mut self, slot: &str, url: &str) -> Self {
        self.state_mut().base_urls.push((slot.to_owned(), url.to_owned()));
        self
    }

    /// What the tool will know of its call.
    #[must_use]
    pub fn context(mut self, context: Context) -> Self {
        self.state_mut().context = context;
        self
    }

    /// Runs a closure with this host in place.
    pub fn run<R>(&self, closure: impl FnOnce() -> R) -> R {
        /// Puts the former host back, after a panic too.
        struct Restore;
        impl Drop for Restore {
            fn drop(&mut self) {
                RUNNING.with_borrow_mut(Vec::pop);
            }
        }
        RUNNING.with_borrow_mut(|running| running.push(Rc::clone(&self.state)));
        let _restore = Restore;
        closure()
    }

    /// Every request that the tool sent, in order, refused ones included.
    #[must_use]
    pub fn requests(&self) -> Vec<Request> {
        self.state.requests.borrow().clone()
    }

    /// Every line that the tool logged, in order.
    #[must_use]
    pub fn lines(&self) -> Vec<(Level, String)> {
        self.state.lines.borrow().clone()
    }

    fn state_mut(&mut self) -> &mut State {
        Rc::get_mut(&mut self.state).expect("a host is built before it runs")
    }
}

fn running() -> Rc<State> {
    RUNNING
        .with_borrow(|running| running.last().cloned())
        .expect("natively there is no host: wrap the test in `keybearer_guest::mock::Host::new()….run(|| …)`")
}

pub(crate) fn send(parts: Parts) -> Result<Response, Error> {
    let state = running();
    let request = Request::from(parts);
    state.requests.borrow_mut().push(request.clone());
    rules::check(&request)?;
    let expected = state.expected.iter().find(|expected| {
        let url = if expected.url.contains('?') { request.url.as_str() } else { request.url_without_query() };
        expected.method == request.method && expected.url == url
    });
    match expected {
        Some(expected) => (expected.handler)(&request),
        None => Err(Error::Denied),
    }
}

pub(crate) fn send_all(requests: Vec<Parts>) -> Vec<Result<Response, Error>> {
    requests.into_iter().map(send).collect()
}

pub(crate) fn log(level: Level, message: &str) {
    running().lines.borrow_mut().push((level, message.to_owned()));
}

pub(crate) fn current() -> Context {
    running().context.clone()
}

pub(crate) fn base_url(slot: &str) -> Option<String> {
    running().base_urls.iter().find(|(name, _)| name == slot).map(|(_, url)| url.clone())
}
