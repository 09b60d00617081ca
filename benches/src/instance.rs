//! What a fresh instance costs: instantiate, invoke, drop, in a loop, in this process. The sandbox with
//! every limit on against the bare engine, on one thread and on two.

use std::sync::Arc;
use std::sync::Barrier;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context as _;
use keybearer_executor::bundle::Bundle;
use keybearer_tests::Built;

use crate::floor::Floor;
use crate::ours::Ours;
use crate::plan::Plan;
use crate::report::INSTANCE_RATIO_MAX;
use crate::report::Report;
use crate::report::Target;
use crate::stats::median;
use crate::stats::paired_ratio;

/// Calls between two looks at the clock. Permits are made in between, untimed.
const BATCH: usize = 64;

/// One kibibyte of arguments for `echo`.
pub(crate) fn arguments() -> String {
    serde_json::json!({ "text": "keybearer ".repeat(101) }).to_string()
}

/// The bundle of a packed tool.
///
/// # Errors
/// If it is not packed.
pub(crate) fn bundle(built: &Built, name: &str) -> anyhow::Result<Bundle> {
    Bundle::from_bytes(&built.bundle(name)?).map_err(|problem| anyhow::anyhow!("{name}: {problem}"))
}

/// Measures, and writes the rows.
///
/// # Errors
/// If a call fails.
pub(crate) fn measure(plan: &Plan, built: &Built, report: &mut Report) -> anyhow::Result<()> {
    let bundle = bundle(built, "echo")?;
    let floor = Arc::new(Floor::new(bundle.component(), None)?);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let ours = Arc::new(runtime.block_on(Ours::new(&bundle.digest(), bundle.component()))?);
    for threads in [1, 2] {
        eprintln!("a fresh instance, {threads} thread(s)");
        let (mut our, mut bare) = (Vec::new(), Vec::new());
        // One pair more: the first warms pools and caches, and is forgotten.
        for index in 0..=plan.slices {
            let mut side = |ours_first: bool| -> anyhow::Result<()> {
                if ours_first {
                    our.push(loop_ours(&ours, threads, plan.slice)?);
                } else {
                    bare.push(loop_floor(&floor, threads, plan.slice)?);
                }
                Ok(())
            };
            side(index % 2 == 0)?;
            side(index % 2 == 1)?;
        }
        let (our, bare) = (&our[1..], &bare[1..]);
        let ratio = paired_ratio(our, bare);
        report.instances.push((threads, our.to_vec(), bare.to_vec()));
        let target = Target::AtMost(INSTANCE_RATIO_MAX);
        let name = format!("a.instance.t{threads}.us");
        report.compare(name, median(our.iter().copied()), median(bare.iter().copied()), ratio, Some(target));
    }
    Ok(())
}

/// Microseconds of a thread's time for a call, on so many threads at once.
fn loop_ours(ours: &Arc<Ours>, threads: usize, slice: Duration) -> anyhow::Result<f64> {
    let ours = Arc::clone(ours);
    on_threads(threads, slice, move |runtime, arguments| {
        let permits: Vec<_> = (0..BATCH).map(|_| ours.permit()).collect();
        let began = Instant::now();
        runtime.block_on(async {
            for permit in permits {
                ours.call(permit, arguments).await?;
            }
            anyhow::Ok(())
        })?;
        Ok(began.elapsed())
    })
}

fn loop_floor(floor: &Arc<Floor>, threads: usize, slice: Duration) -> anyhow::Result<f64> {
    let floor = Arc::clone(floor);
    on_threads(threads, slice, move |runtime, arguments| {
        let began = Instant::now();
        runtime.block_on(async {
            for _ in 0..BATCH {
                floor.call("echo", arguments).await?;
            }
            anyhow::Ok(())
        })?;
        Ok(began.elapsed())
    })
}

/// Runs batches on each thread until the slice is over; the median of the batches, by the call.
fn on_threads(
    threads: usize,
    slice: Duration,
    batch: impl Fn(&tokio::runtime::Runtime, &str) -> anyhow::Result<Duration> + Send + Sync + 'static,
) -> anyhow::Result<f64> {
    let batch = Arc::new(batch);
    let start = Arc::new(Barrier::new(threads));
    let workers = (0..threads).map(|_| {
        let (batch, start) = (Arc::clone(&batch), Arc::clone(&start));
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let arguments = arguments();
            let mut batches = Vec::new();
            start.wait();
            let began = Instant::now();
            while began.elapsed() < slice {
                batches.push(batch(&runtime, &arguments)?.as_secs_f64() * 1e6 / BATCH as f64);
            }
            anyhow::Ok(batches)
        })
    });
    let workers: Vec<_> = workers.collect();
    let mut all = Vec::new();
    for worker in workers {
        all.extend(worker.join().ok().context("a thread panicked")??);
    }
    Ok(median(all))
}
