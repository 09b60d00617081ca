//! What a running guest's imports see: its own share of one call and nothing of the store. The
//! imports of `keybearer:tool` are answered here; limits on requests and bytes are kept here.

use std::collections::VecDeque;
use std::sync::Arc;

use keybearer_contract::CallId;
use keybearer_contract::Delivery;
use keybearer_contract::GuestHeader;
use keybearer_contract::GuestRequest;
use keybearer_contract::Limits;
use keybearer_contract::Method;
use keybearer_contract::SlotName;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::bindings::call;
use crate::bindings::http;
use crate::bindings::log;
use crate::bindings::types;
use crate::limiter::Limiter;
pub(crate) use crate::limiter::Refused;
use crate::log::LogBook;
use crate::meter::Meter;
use crate::outlet::GuestFault;
use crate::outlet::GuestMistake;
use crate::outlet::Pending;
use crate::outlet::UpstreamReason;
use crate::outlet::Way;
use crate::stop::Halt;
use crate::tool::Tool;
use crate::wasi::WasiParts;

/// No server takes a longer one.
pub(crate) const URL_BYTES_MAX: usize = 64 << 10;

/// All header fields of a request, and their number: several times what servers take.
const HEAD_BYTES_MAX: usize = 256 << 10;
const HEADERS_MAX: usize = 1_000;

/// One call's state, owned by its store.
pub(crate) struct State {
    pub(crate) limiter: Limiter,
    /// Shared with the guest's standard output, where its manifest asks for that.
    pub(crate) log: Arc<Mutex<LogBook>>,
    pub(crate) wasi: Option<Box<WasiParts>>,
    pub(crate) meter: Arc<Meter>,
    limits: Limits,
    /// None while a package describes itself: every request is denied.
    pub(crate) way: Option<Box<dyn Way>>,
    call: Call,
    /// Made so far; signatures are among them.
    pub(crate) requests: u64,
    pub(crate) bytes: u64,
}

/// What a guest may know of its own call.
pub(crate) struct Call {
    /// None while a package describes itself.
    pub(crate) id: Option<CallId>,
    pub(crate) deadline: Instant,
    pub(crate) attempt: u32,
    pub(crate) base_urls: Vec<(SlotName, String)>,
}

impl State {
    pub(crate) fn new(tool: &Tool, limits: Limits, way: Option<Box<dyn Way>>, call: Call, meter: Arc<Meter>) -> Self {
        let log = Arc::new(Mutex::new(LogBook::new(limits.log_bytes)));
        Self {
            limiter: Limiter::new(&limits),
            wasi: tool.wasi(limits.handles, &log),
            log,
            meter,
            limits,
            way,
            call,
            requests: 0,
            bytes: 0,
        }
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Called at every epoch at which the guest is found running.
    pub(crate) fn tick(&self) -> Result<(), Halt> {
        if self.meter.spent_within().as_millis() >= u128::from(self.limits.cpu_ms) {
            return Err(Halt::Limit { name: "cpu_ms", value: self.limits.cpu_ms });
        }
        Ok(())
    }

    /// Counts a request and hands it over, or says what is wrong with it.
    fn begin(&mut self, request: http::Request) -> Result<Pending, GuestFault> {
        let Some(way) = &self.way else { return Err(GuestFault::Denied) };
        if self.requests >= self.limits.requests {
            return Err(GuestFault::Guest(GuestMistake::TooManyRequests));
        }
        // Whoever clears the request is stricter; this keeps megabytes of head from travelling there.
        if request.url.len() > URL_BYTES_MAX {
            return Err(GuestFault::Guest(GuestMistake::MalformedUrl));
        }
        let head: usize = request.headers.iter().map(|header| header.name.len() + header.value.len()).sum();
        if head > HEAD_BYTES_MAX || request.headers.len() > HEADERS_MAX {
            return Err(GuestFault::Guest(GuestMistake::MalformedHeader));
        }
        let body = request.body.as_ref().map_or(0, |body| body.len() as u64);
        if body > self.limits.request_bytes {
            return Err(GuestFault::Guest(GuestMistake::RequestTooLarge));
        }
        let bytes = self.bytes.saturating_add(body);
        if bytes > self.limits.total_bytes {
            return Err(GuestFault::Guest(GuestMistake::TooManyBytes));
        }
        self.requests += 1;
        self.bytes = bytes;
        Ok(way.go(request.into()))
    }

    /// Waits for an answer and counts it. Whoever answers keeps these limits while it reads; here they
    /// are kept once more, before anything is copied into the guest.
    async fn finish(&mut self, pending: Pending) -> Result<http::Response, http::Error> {
        let (status, headers, body) = pending.await?;
        self.bytes = self.bytes.saturating_add(body.len() as u64);
        if body.len() as u64 > self.limits.response_bytes || self.bytes > self.limits.total_bytes {
            let (reason, delivery) = (UpstreamReason::AnswerTooLarge, Delivery::MaybeSent);
            return Err(GuestFault::Upstream { reason, delivery }.into());
        }
        let headers = headers.into_iter().map(|(name, value)| http::Header { name, value }).collect();
        Ok(http::Response { status, headers, body })
    }
}

impl http::Host for State {
    async fn send(&mut self, request: http::Request) -> wasmtime::Result<Result<http::Response, http::Error>> {
        let pending = match self.begin(request) {
            Ok(pending) => pending,
            Err(fault) => return Ok(Err(fault.into())),
        };
        Ok(self.finish(pending).await)
    }

    async fn send_all(
        &mut self,
        requests: Vec<http::Request>,
    ) -> wasmtime::Result<Vec<Result<http::Response, http::Error>>> {
        let width = usize::try_from(self.limits.parallel_requests).unwrap_or(usize::MAX).max(1);
        let mut answers = Vec::with_capacity(requests.len());
        let mut under_way: VecDeque<Result<Pending, GuestFault>> = VecDeque::new();
        for request in requests {
            // The oldest is waited for first: answers stand in the order of the requests.
            if under_way.len() == width {
                let oldest = under_way.pop_front().expect("the width is at least 1");
                answers.push(self.settle(oldest).await);
            }
            under_way.push_back(self.begin(request));
        }
        for oldest in under_way {
            answers.push(self.settle(oldest).await);
        }
        Ok(answers)
    }
}

impl State {
    async fn settle(&mut self, begun: Result<Pending, GuestFault>) -> Result<http::Response, http::Error> {
        match begun {
            Ok(pending) => self.finish(pending).await,
            Err(fault) => Err(fault.into()),
        }
    }
}

impl log::Host for State {
    fn write(&mut self, level: log::Level, message: String) -> wasmtime::Result<()> {
        self.log.lock().write(level.into(), &message);
        Ok(())
    }
}

impl call::Host for State {
    fn current(&mut self) -> wasmtime::Result<call::Context> {
        let left = self.call.deadline.saturating_duration_since(Instant::now());
        Ok(call::Context {
            call_id: self.call.id.as_ref().map(|id| id.as_str().to_owned()).unwrap_or_default(),
            remaining_ms: u64::try_from(left.as_millis()).unwrap_or(u64::MAX),
            attempt: self.call.attempt,
        })
    }

    fn base_url(&mut self, slot: String) -> wasmtime::Result<Option<String>> {
        let found = self.call.base_urls.iter().find(|(name, _)| name.as_str() == slot);
        Ok(found.map(|(_, url)| url.clone()))
    }
}

impl types::Host for State {}

impl From<http::Method> for Method {
    fn from(method: http::Method) -> Self {
        match method {
            http::Method::Get => Self::Get,
            http::Method::Head => Self::Head,
            http::Method::Post => Self::Post,
            http::Method::Put => Self::Put,
            http::Method::Patch => Self::Patch,
            http::Method::Delete => Self::Delete,
            http::Method::Options => Self::Options,
        }
    }
}

impl From<http::Request> for GuestRequest {
    fn from(request: http::Request) -> Self {
        let method = request.method.into();
        let header = |header: http::Header| GuestHeader { name: header.name, value: header.value };
        let headers = request.headers.into_iter().map(header).collect();
        Self { method, url: request.url, headers, body: request.body }
    }
}

impl From<GuestFault> for http::Error {
    fn from(fault: GuestFault) -> Self {
        let delivery = |delivery| match delivery {
            Delivery::NotSent => http::Delivery::NotSent,
            Delivery::MaybeSent => http::Delivery::MaybeSent,
        };
        match fault {
            GuestFault::Denied => Self::Denied,
            GuestFault::Guest(mistake) => Self::Guest(match mistake {
                GuestMistake::MalformedUrl => http::GuestFault::MalformedUrl,
                GuestMistake::MalformedHeader => http::GuestFault::MalformedHeader,
                GuestMistake::RequestTooLarge => http::GuestFault::RequestTooLarge,
                GuestMistake::TooManyRequests => http::GuestFault::TooManyRequests,
                GuestMistake::TooManyBytes => http::GuestFault::TooManyBytes,
            }),
            GuestFault::Upstream { reason, delivery: sent } => Self::Upstream(http::UpstreamFault {
                reason: match reason {
                    UpstreamReason::Unresolvable => http::UpstreamReason::Unresolvable,
                    UpstreamReason::Unreachable => http::UpstreamReason::Unreachable,
                    UpstreamReason::Untrusted => http::UpstreamReason::Untrusted,
                    UpstreamReason::Timeout => http::UpstreamReason::Timeout,
                    UpstreamReason::MalformedAnswer => http::UpstreamReason::MalformedAnswer,
                    UpstreamReason::AnswerTooLarge => http::UpstreamReason::AnswerTooLarge,
                    UpstreamReason::PartialAnswer => http::UpstreamReason::PartialAnswer,
                },
                delivery: delivery(sent),
            }),
            GuestFault::Host { delivery: sent } => Self::Host(http::HostFault { delivery: delivery(sent) }),
        }
    }
}
