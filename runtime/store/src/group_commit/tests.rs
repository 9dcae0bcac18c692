//! Tests with a channel in place of the store: each batch waits until the test answers it.
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::task::{JoinHandle, JoinSet};

use super::*;

type Batch = (Vec<u64>, oneshot::Sender<Result<Vec<u64>, StoreError>>);

/// Returns a group of numbers. The key of a number is its last digit, and its answer is the number.
fn group(options: Options) -> (GroupCommit<u64, u64>, mpsc::UnboundedReceiver<Batch>) {
    let (sender, batches) = mpsc::unbounded_channel();
    let group = GroupCommit::spawn(
        &rollcall_base::tasks::Tasks::default(),
        "test",
        options,
        |number| number % 10,
        move |batch: Vec<u64>| {
            let sender = sender.clone();
            async move {
                let (answer, answered) = oneshot::channel();
                sender.send((batch, answer)).ok();
                answered.await.unwrap_or(Err(StoreError::Fenced))
            }
        },
    );
    (group, batches)
}

fn one_lane() -> Options {
    Options { lanes: 1, ..Options::default() }
}

fn call(group: &GroupCommit<u64, u64>, number: u64) -> JoinHandle<Result<u64, StoreError>> {
    let group = group.clone();
    tokio::spawn(async move { group.call(number).await })
}

/// Makes calls in this order. Returns when all are queued.
async fn calls(group: &GroupCommit<u64, u64>, numbers: &[u64]) -> Vec<JoinHandle<Result<u64, StoreError>>> {
    let mut tasks = Vec::new();
    for number in numbers {
        let free = group.lanes[0].capacity();
        tasks.push(call(group, *number));
        while group.lanes[0].capacity() == free {
            tokio::task::yield_now().await;
        }
    }
    tasks
}

fn echo((batch, answer): Batch) -> Vec<u64> {
    answer.send(Ok(batch.clone())).expect("the lane listens");
    batch
}

#[tokio::test(start_paused = true)]
async fn a_throttled_group_gathers_first() {
    let throttle = watch::Sender::new(true);
    let (group, mut batches) = group(Options { throttle_while: Some(throttle.subscribe()), ..one_lane() });
    let since = Instant::now();
    let first = call(&group, 1);
    sleep(THROTTLE / 2).await;
    let second = call(&group, 2);
    assert_eq!(echo(batches.recv().await.expect("a batch")), [1, 2]);
    assert_eq!(since.elapsed(), THROTTLE);
    throttle.send_replace(false);
    let third = call(&group, 3);
    assert_eq!(echo(batches.recv().await.expect("a batch")), [3]);
    assert_eq!(since.elapsed(), THROTTLE, "it waits no more");
    for call in [first, second, third] {
        call.await.expect("no panic").expect("answered");
    }
}

#[tokio::test(start_paused = true)]
async fn a_group_gathers_after_a_batch_of_a_busy_database() {
    let (group, mut batches) = group(Options::for_database(true));
    let answer_after = async |batches: &mut mpsc::UnboundedReceiver<Batch>, took: Duration| {
        let begun = batches.recv().await.expect("a batch");
        sleep(took).await;
        (echo(begun), Instant::now())
    };
    let mut waiting = vec![call(&group, 1)];
    let (_, ended) = answer_after(&mut batches, BUSY + Duration::from_millis(1)).await;
    waiting.push(call(&group, 2));
    sleep(BUSY).await;
    waiting.push(call(&group, 3));
    let (batch, answered) = answer_after(&mut batches, BUSY).await;
    assert_eq!(batch, [2, 3]);
    assert_eq!(answered - ended, 2 * (BUSY + Duration::from_millis(1)) + BUSY);
    waiting.push(call(&group, 4));
    let (batch, ended) = answer_after(&mut batches, 10 * MAX_PAUSE).await;
    assert_eq!(batch, [4]);
    assert_eq!(ended - answered, 10 * MAX_PAUSE, "the database was not busy");
    waiting.push(call(&group, 5));
    let (batch, answered) = answer_after(&mut batches, 10 * MAX_PAUSE).await;
    assert_eq!((batch, answered - ended), (vec![5], 11 * MAX_PAUSE));
    // The last digits differ, as the keys do.
    waiting.extend((10..10 + LARGE as u64).map(|number| call(&group, number)));
    assert_eq!(echo(batches.recv().await.expect("a batch")).len(), 10);
    assert_eq!(answered.elapsed(), Duration::ZERO, "a large batch does not wait");
    while let Ok(batch) = batches.try_recv() {
        echo(batch);
    }
    drop(waiting);
}

#[tokio::test]
async fn what_waits_is_the_next_batch_and_equal_keys_wait_for_each_other() {
    let (group, mut batches) = group(one_lane());
    let first = call(&group, 1);
    let begun = batches.recv().await.expect("a batch");
    let rest = calls(&group, &[2, 12, 3, 22, 13, 4]).await;
    assert_eq!(echo(begun), [1]);
    assert_eq!(first.await.expect("no panic").expect("answered"), 1);
    for expected in [vec![2, 3, 4], vec![12, 13], vec![22]] {
        assert_eq!(echo(batches.recv().await.expect("a batch")), expected);
    }
    for (task, number) in rest.into_iter().zip([2, 12, 3, 22, 13, 4]) {
        assert_eq!(task.await.expect("no panic").expect("answered"), number);
    }
}

#[tokio::test]
async fn a_batch_has_its_limit() {
    let (group, mut batches) = group(Options { max_batch: 2, ..one_lane() });
    let _first = call(&group, 1);
    let begun = batches.recv().await.expect("a batch");
    let _rest = calls(&group, &[2, 3, 4, 5, 6]).await;
    echo(begun);
    for expected in [vec![2, 3], vec![4, 5], vec![6]] {
        assert_eq!(echo(batches.recv().await.expect("a batch")), expected);
    }
}

#[tokio::test]
async fn one_that_is_refused_fails_alone() {
    let (group, mut batches) = group(one_lane());
    let first = call(&group, 1);
    let begun = batches.recv().await.expect("a batch");
    let rest = calls(&group, &[2, 3, 4]).await;
    echo(begun);
    first.await.expect("no panic").expect("answered");
    for poisoned in [vec![2, 3, 4], vec![2], vec![3], vec![4]] {
        let (batch, answer) = batches.recv().await.expect("a batch");
        assert_eq!(batch, poisoned);
        let refused = Err(StoreError::Refused("poison".to_owned()));
        answer.send(if batch.contains(&3) { refused } else { Ok(batch) }).expect("the lane listens");
    }
    for (task, number) in rest.into_iter().zip([2, 3, 4]) {
        let answer = task.await.expect("no panic");
        assert_eq!(answer.is_err(), number == 3, "{answer:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_waited_too_long_never_begins_and_what_hangs_is_given_up() {
    let (group, mut batches) = group(one_lane());
    let start = Instant::now();
    let first = call(&group, 1);
    let hanging = batches.recv().await.expect("a batch");
    let rest = calls(&group, &[2, 3]).await;
    for task in rest {
        assert!(matches!(task.await.expect("no panic"), Err(StoreError::Overloaded)));
        assert!(start.elapsed() < Duration::from_secs(2));
    }
    assert!(matches!(first.await.expect("no panic"), Err(StoreError::Unavailable(_))));
    assert!(start.elapsed() < Duration::from_secs(2));
    drop(hanging);
    let next = call(&group, 4);
    assert_eq!(echo(batches.recv().await.expect("a batch")), [4], "neither 2 nor 3");
    assert_eq!(next.await.expect("no panic").expect("answered"), 4);
}

#[tokio::test]
async fn what_nobody_waits_for_any_more_never_begins_and_what_has_begun_goes_on() {
    let (group, mut batches) = group(one_lane());
    let first = call(&group, 1);
    let begun = batches.recv().await.expect("a batch");
    let mut rest = calls(&group, &[2, 3, 13]).await;
    for gone in [first, rest.remove(2), rest.remove(0)] {
        gone.abort();
        assert!(gone.await.expect_err("aborted").is_cancelled());
    }
    assert_eq!(echo(begun), [1], "the store still has it");
    assert_eq!(echo(batches.recv().await.expect("a batch")), [3], "neither 2 nor 13");
}

#[tokio::test]
async fn a_full_queue_refuses_at_once() {
    let (group, mut batches) = group(Options { queue: 2, ..one_lane() });
    let _first = call(&group, 1);
    let _begun = batches.recv().await.expect("a batch");
    let _rest = calls(&group, &[2, 3]).await;
    assert!(matches!(group.call(4).await, Err(StoreError::Overloaded)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_is_in_one_batch_at_a_time_whatever_the_lanes() {
    static RUNNING: [AtomicUsize; 10] = [const { AtomicUsize::new(0) }; 10];
    let slot = |number: &u64| &RUNNING[usize::try_from(number % 10).expect("a digit")];
    let group = GroupCommit::spawn(
        &rollcall_base::tasks::Tasks::default(),
        "test",
        Options { lanes: 4, ..Options::default() },
        |number| number % 10,
        move |batch: Vec<u64>| async move {
            for number in &batch {
                assert_eq!(slot(number).fetch_add(1, Ordering::SeqCst), 0, "twice at once");
            }
            tokio::task::yield_now().await;
            for number in &batch {
                slot(number).fetch_sub(1, Ordering::SeqCst);
            }
            Ok(batch)
        },
    );
    let mut tasks = JoinSet::new();
    for number in 0..1000 {
        let group = group.clone();
        tasks.spawn(async move { assert_eq!(group.call(number).await.expect("answered"), number) });
    }
    while let Some(task) = tasks.join_next().await {
        task.expect("no panic");
    }
}
