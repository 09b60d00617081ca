//! Tests of quotas: that a tenant's flood is its own to wait for, that what is dropped is given back,
//! and that nothing is counted twice or lost.

use std::future::Future;
use std::pin::Pin;
use std::pin::pin;
use std::task::Context;
use std::task::Poll;
use std::task::Waker;

use keybearer_contract::Limits;
use keybearer_contract::UnixMillis;

use super::*;
use crate::TenantState;

const LONG: Duration = Duration::from_secs(600);

fn tenant(concurrent_calls: u32) -> TenantRecord {
    TenantRecord {
        id: TenantId::random(),
        name: "acme".parse().expect("name"),
        state: TenantState::Active,
        created: UnixMillis(1),
        limits: Limits::default(),
        calls_per_second: 1_000_000,
        concurrent_calls,
    }
}

fn quotas(places: usize, queue_per_tenant: usize) -> Quotas {
    Quotas::new(QuotaLimits { places, queue_per_tenant, wait: LONG })
}

type Admitting<'a> = Pin<Box<dyn Future<Output = Result<Place, Problem>> + 'a>>;

fn ask<'a>(quotas: &'a Quotas, tenant: &'a TenantRecord) -> Admitting<'a> {
    // A thousand looks within one task would otherwise use up the task's share of tokio's budget.
    Box::pin(tokio::task::unconstrained(quotas.admit(tenant)))
}

/// Looks once, without waiting.
fn look<F: Future + ?Sized>(future: Pin<&mut F>) -> Option<F::Output> {
    match future.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    }
}

fn place(quotas: &Quotas, tenant: &TenantRecord) -> Place {
    let place = look(pin!(quotas.admit(tenant))).expect("no wait");
    place.unwrap_or_else(|problem| panic!("{problem}"))
}

#[tokio::test]
async fn p9_a_flood_of_one_tenant_delays_another_by_one_release_at_most() {
    let quotas = quotas(10, 1000);
    let (flood, other) = (tenant(1000), tenant(1000));
    let mut held: Vec<Place> = (0..10).map(|_| place(&quotas, &flood)).collect();
    let mut waiting: Vec<_> = (0..990).map(|_| ask(&quotas, &flood)).collect();
    assert!(waiting.iter_mut().all(|admitting| look(admitting.as_mut()).is_none()));
    let mut asked = ask(&quotas, &other);
    assert!(look(asked.as_mut()).is_none());
    drop(held.pop());
    let got = look(asked.as_mut());
    assert!(matches!(got, Some(Ok(_))));
    assert!(waiting.iter_mut().all(|admitting| look(admitting.as_mut()).is_none()));
}

#[tokio::test]
async fn p9_a_tenant_at_its_own_limit_leaves_free_places_to_others() {
    let quotas = quotas(10, 1000);
    let (flood, other) = (tenant(2), tenant(5));
    let _held = [place(&quotas, &flood), place(&quotas, &flood)];
    let mut waiting: Vec<_> = (0..100).map(|_| ask(&quotas, &flood)).collect();
    assert!(waiting.iter_mut().all(|admitting| look(admitting.as_mut()).is_none()));
    let _others: Vec<_> = (0..5).map(|_| place(&quotas, &other)).collect();
    assert_eq!(quotas.usage(), (7, 100));
}

#[tokio::test]
async fn p9_places_are_shared_evenly_and_a_tenants_calls_keep_their_order() {
    let quotas = quotas(4, 1000);
    let tenants = [tenant(100), tenant(100)];
    let mut held: Vec<Place> = (0..4).map(|_| place(&quotas, &tenants[0])).collect();
    let mut lines: Vec<Vec<_>> = tenants.iter().map(|tenant| (0..20).map(|_| ask(&quotas, tenant)).collect()).collect();
    assert!(lines.iter_mut().flatten().all(|admitting| look(admitting.as_mut()).is_none()));
    let mut served = Vec::new();
    for _ in 0..8 {
        drop(held.remove(0));
        for (number, line) in lines.iter_mut().enumerate() {
            if let Some(got) = look(line[0].as_mut()) {
                held.push(got.unwrap_or_else(|problem| panic!("{problem}")));
                drop(line.remove(0));
                served.push(number);
            }
            // Nobody behind the first of a line was served.
            assert!(line.iter_mut().skip(1).all(|admitting| look(admitting.as_mut()).is_none()));
        }
        assert_eq!(held.len(), 4);
    }
    // The first four that are released are the first tenant's: two make it even, and then each place goes
    // back to whose it was.
    assert_eq!(served, [1, 1, 0, 0, 1, 1, 0, 0]);
}

#[tokio::test]
async fn a_call_that_is_dropped_while_it_waits_leaves_the_line() {
    let quotas = quotas(1, 10);
    let acme = tenant(10);
    let held = place(&quotas, &acme);
    let mut first = ask(&quotas, &acme);
    let mut second = ask(&quotas, &acme);
    assert!(look(first.as_mut()).is_none() && look(second.as_mut()).is_none());
    drop(first);
    drop(held);
    assert!(look(second.as_mut()).is_some_and(|got| got.is_ok()));
    assert_eq!(quotas.usage(), (0, 0));
}

#[tokio::test]
async fn a_place_that_was_given_to_a_call_that_is_gone_goes_to_the_next() {
    let quotas = quotas(1, 10);
    let acme = tenant(10);
    let held = place(&quotas, &acme);
    let mut first = ask(&quotas, &acme);
    let mut second = ask(&quotas, &acme);
    assert!(look(first.as_mut()).is_none() && look(second.as_mut()).is_none());
    drop(held);
    // It has the place by now and was not looked at again.
    drop(first);
    assert!(look(second.as_mut()).is_some_and(|got| got.is_ok()));
    assert_eq!(quotas.usage(), (0, 0));
}

#[tokio::test]
async fn waiting_ends_and_says_whether_the_tenant_or_the_server_is_full() {
    let quotas = Quotas::new(QuotaLimits { places: 2, queue_per_tenant: 10, wait: Duration::from_millis(5) });
    let (small, large) = (tenant(1), tenant(10));
    let _held = place(&quotas, &small);
    let problem = quotas.admit(&small).await.err().expect("in vain");
    assert_eq!((problem.code, problem.limit), (Code::RateLimited, Some(("concurrent_calls".into(), 1))));
    let _rest = place(&quotas, &large);
    let problem = quotas.admit(&large).await.err().expect("in vain");
    assert_eq!((problem.code, problem.retry_after_s), (Code::Overloaded, Some(1)));
    assert_eq!(quotas.usage(), (2, 0));
}

#[tokio::test]
async fn a_full_line_and_a_tenant_without_places_are_refused_at_once() {
    let quotas = quotas(1, 2);
    let acme = tenant(10);
    let _held = place(&quotas, &acme);
    let mut waiting = [ask(&quotas, &acme), ask(&quotas, &acme)];
    assert!(waiting.iter_mut().all(|admitting| look(admitting.as_mut()).is_none()));
    let refused = look(pin!(quotas.admit(&acme))).expect("at once");
    assert_eq!(refused.err().map(|problem| problem.code), Some(Code::RateLimited));
    let refused = look(pin!(quotas.admit(&tenant(0)))).expect("at once");
    assert_eq!(refused.err().map(|problem| problem.code), Some(Code::RateLimited));
}

#[test]
fn a_rate_lets_a_seconds_calls_in_at_once_and_then_one_at_a_time() {
    let quotas = quotas(1000, 10);
    let acme = TenantRecord { calls_per_second: 10, ..tenant(1000) };
    let start = Instant::now();
    let admitted = |after_ms: u64| {
        (0..100).take_while(|_| quotas.enter(&acme, start + Duration::from_millis(after_ms)).is_ok()).count()
    };
    assert_eq!(admitted(0), 10);
    assert_eq!(admitted(99), 0);
    assert_eq!(admitted(100), 1);
    assert_eq!(admitted(450), 3);
    assert_eq!(admitted(60_000), 10);
    let Err(problem) = quotas.enter(&acme, start + Duration::from_millis(60_000)) else { panic!("let in") };
    assert_eq!((problem.code, problem.retry_after_s), (Code::RateLimited, Some(1)));
    assert_eq!(problem.limit, Some(("calls_per_second".into(), 10)));
    let slow = TenantRecord { calls_per_second: 1, ..tenant(1000) };
    assert!(quotas.enter(&slow, start).is_ok() && quotas.enter(&slow, start).is_err());
    assert!(quotas.enter(&TenantRecord { calls_per_second: 0, ..tenant(1) }, start).is_err());
}

#[test]
fn h10_the_calls_of_one_tenant_count_together_and_those_of_another_do_not() {
    let quotas = quotas(1000, 10);
    let now = Instant::now();
    let acme = TenantRecord { calls_per_second: 3, ..tenant(1000) };
    // Whatever else changes between its calls, the tenant's id is what counts.
    let renamed = TenantRecord { name: "acme-2".parse().expect("name"), ..acme.clone() };
    assert!(quotas.enter(&acme, now).is_ok() && quotas.enter(&renamed, now).is_ok());
    assert!(quotas.enter(&acme, now).is_ok() && quotas.enter(&renamed, now).is_err());
    assert!(quotas.enter(&TenantRecord { calls_per_second: 3, ..tenant(1000) }, now).is_ok());
}

#[test]
fn a_limit_that_is_raised_holds_for_the_next_call() {
    let quotas = quotas(10, 10);
    let now = Instant::now();
    let low = tenant(1);
    let high = TenantRecord { concurrent_calls: 2, ..low.clone() };
    let _first = quotas.enter(&low, now);
    assert!(matches!(quotas.enter(&high, now), Ok(Entered::Placed(_))));
}

#[test]
fn seats_of_tenants_that_are_gone_do_not_pile_up() {
    let quotas = quotas(10, 10);
    let start = Instant::now();
    for number in 0..5_000 {
        assert!(quotas.enter(&tenant(1), start + Duration::from_millis(number)).is_ok());
    }
    assert!(quotas.floor.lock().tenants.len() <= SWEEP_AT_LEAST);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn g09_ten_thousand_at_once_with_some_cut_off_lose_no_place() {
    use std::sync::atomic::AtomicUsize;
    use std::sync::atomic::Ordering;
    const PLACES: usize = 32;
    struct Leaving(Arc<AtomicUsize>);
    impl Drop for Leaving {
        fn drop(&mut self) {
            self.0.fetch_sub(1, Ordering::SeqCst);
        }
    }
    let quotas = Arc::new(quotas(PLACES, 150));
    let tenants: Vec<_> = (0..50).map(|_| Arc::new(tenant(8))).collect();
    let inside = Arc::new(AtomicUsize::new(0));
    let tasks: Vec<_> = (0..10_000)
        .map(|number| {
            let (quotas, tenant, inside) =
                (Arc::clone(&quotas), Arc::clone(&tenants[number % tenants.len()]), Arc::clone(&inside));
            tokio::spawn(async move {
                let _place = quotas.admit(&tenant).await?;
                assert!(inside.fetch_add(1, Ordering::SeqCst) < PLACES, "more inside than there are places");
                // Before the place is given back, and when the task is cut off as well.
                let _inside = Leaving(inside);
                tokio::task::yield_now().await;
                Ok::<_, Problem>(())
            })
        })
        .collect();
    let mut ended = [0, 0];
    for (number, task) in tasks.into_iter().enumerate() {
        if number % 7 == 0 {
            task.abort();
        }
        match task.await {
            Ok(Ok(())) => ended[0] += 1,
            Ok(Err(problem)) => {
                assert_eq!(problem.code, Code::RateLimited);
                ended[1] += 1;
            }
            Err(error) => assert!(error.is_cancelled(), "{error}"),
        }
    }
    assert!(ended[0] > 0, "{ended:?}");
    assert_eq!(quotas.usage(), (0, 0));
    assert!(quotas.floor.lock().line.is_empty());
}
