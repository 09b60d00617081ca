//! One call in one fresh instance (P5). It is made from a permit, which it spends; invoking it consumes
//! it; whatever the guest does, what is left is an [`Ended`].

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;

use keybearer_contract::Limits;
use keybearer_contract::SlotName;
use keybearer_gate::Facts;
use tokio::time::Instant;
use tokio::time::timeout_at;
use wasmtime::Engine;
use wasmtime::Store;
use wasmtime::UpdateDeadline;

use crate::bindings;
use crate::log::LogLine;
use crate::meter::Meter;
use crate::outlet::Way;
use crate::state::Call;
use crate::state::State;
use crate::stop::Stop;
use crate::stop::classify;
use crate::tool::Tool;

/// What a call comes with beside its arguments.
pub struct CallSetup {
    /// What holds for this call: ceilings, tenant and package are already in it.
    pub limits: Limits,
    /// When it is stopped, time in host calls included.
    pub deadline: Instant,
    /// 1 for the first attempt.
    pub attempt: u32,
    /// The base URLs that grants fixed, by slot.
    pub base_urls: Vec<(SlotName, String)>,
}

/// A fresh instance for one call. Nothing of the guest has run yet.
///
/// It serves one call:
/// ```
/// # use keybearer_sandbox::Ended;
/// # use keybearer_sandbox::Instance;
/// async fn once(instance: Instance) -> Ended {
///     instance.invoke("{}".to_owned()).await
/// }
/// ```
/// and never a second one:
/// ```compile_fail,E0382
/// # use keybearer_sandbox::Ended;
/// # use keybearer_sandbox::Instance;
/// async fn twice(instance: Instance) -> Ended {
///     instance.invoke("{}".to_owned()).await;
///     instance.invoke("{}".to_owned()).await
/// }
/// ```
#[must_use]
pub struct Instance {
    pub(crate) engine: Engine,
    pub(crate) tool: Arc<Tool>,
    pub(crate) facts: Facts,
    pub(crate) way: Box<dyn Way>,
    pub(crate) setup: CallSetup,
}

/// A call that has ended, one way or another. Not `Debug`: what the guest said is not scrubbed yet.
pub struct Ended {
    /// Whose call it was.
    pub facts: Facts,
    /// The result as JSON text, unchecked and unscrubbed; or why there is none.
    pub outcome: Result<String, Stop>,
    /// What the guest logged, unscrubbed.
    pub logs: Vec<LogLine>,
    /// How many lines more there were.
    pub dropped_logs: u64,
    /// Time on a processor, in microseconds.
    pub cpu_us: u64,
    /// The most linear memory that it had, in bytes.
    pub memory_peak: u64,
}

impl Instance {
    /// Whose call it is, for records.
    #[must_use]
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// Runs the permitted tool on `arguments` (JSON text), once. If the future is dropped, the guest is
    /// gone with it; what it had handed to the outlet goes on.
    pub async fn invoke(self, arguments: String) -> Ended {
        let Self { engine, tool, facts, way, setup } = self;
        let limits = setup.limits;
        let deadline = setup.deadline;
        let meter = Arc::new(Meter::new());
        let call = Call { id: Some(facts.call.clone()), deadline, attempt: setup.attempt, base_urls: setup.base_urls };
        let mut store = store(&engine, State::new(&tool, limits, Some(way), call, Arc::clone(&meter)));
        let outcome = if *tool.digest() != facts.package {
            // The permit is for another package than the one that was loaded: somebody mixed them up.
            Err(Stop::Internal)
        } else if arguments.len() as u64 > limits.arguments_bytes {
            Err(Stop::Limit { name: "arguments_bytes", value: limits.arguments_bytes })
        } else {
            let work = run(&tool, &mut store, facts.tool.tool.as_str(), &arguments);
            let ended = within(deadline, &meter, work).await;
            settle(ended, &store, &limits)
        };
        let State { log, limiter, wasi, .. } = store.into_data();
        // A line that the guest began and did not end is written out here.
        drop(wasi);
        let (logs, dropped_logs) = log.lock().take();
        Ended {
            facts,
            outcome,
            logs,
            dropped_logs,
            cpu_us: u64::try_from(meter.spent().as_micros()).unwrap_or(u64::MAX),
            memory_peak: limiter.memory_peak(),
        }
    }
}

type Invoked = Result<String, bindings::types::ToolError>;

async fn run(tool: &Tool, store: &mut Store<State>, name: &str, arguments: &str) -> wasmtime::Result<Invoked> {
    let instance = tool.pre().instantiate_async(&mut *store).await?;
    instance.call_invoke(&mut *store, name, arguments).await
}

/// A store with every limit set that a store has.
pub(crate) fn store(engine: &Engine, state: State) -> Store<State> {
    let limits = *state.limits();
    let size = |value: u64| usize::try_from(value).unwrap_or(usize::MAX);
    let mut store = Store::new(engine, state);
    store.limiter(|state| &mut state.limiter);
    store.set_hostcall_fuel(size(limits.hostcall_fuel));
    store.set_max_component_handles(size(limits.handles));
    // At every epoch: is there budget left? If so, give the runtime's thread back for a turn.
    store.epoch_deadline_callback(|store| {
        store.data().tick()?;
        Ok(UpdateDeadline::Yield(1))
    });
    store.set_epoch_deadline(1);
    store
}

/// Drives a guest until it ends or the deadline passes; none if it passed.
pub(crate) async fn within<T>(deadline: Instant, meter: &Meter, work: impl Future<Output = T>) -> Option<T> {
    let mut work = pin!(work);
    timeout_at(deadline, poll_fn(|context| meter.poll(work.as_mut(), context))).await.ok()
}

fn settle(ended: Option<wasmtime::Result<Invoked>>, store: &Store<State>, limits: &Limits) -> Result<String, Stop> {
    match ended {
        None => Err(Stop::Timeout),
        Some(Err(error)) => Err(classify(&error, limits, store.data().limiter.refused())),
        Some(Ok(Err(error))) => Err(error.into()),
        // Lifting was bounded by `hostcall_fuel` before; wasmtime offers no look at the length alone.
        Some(Ok(Ok(result))) if result.len() as u64 > limits.result_bytes => {
            Err(Stop::Limit { name: "result_bytes", value: limits.result_bytes })
        }
        Some(Ok(Ok(result))) => Ok(result),
    }
}
