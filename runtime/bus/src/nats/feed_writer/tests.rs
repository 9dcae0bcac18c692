use std::pin::pin;

use futures_util::poll;

use super::*;

fn state(last: u64) -> State {
    State::through("e", last)
}

/// On a busy machine, the writer may run long after its answer came.
#[tokio::test]
async fn an_answer_that_later_ones_overtake_is_no_sign_of_a_stream_that_was_put_back() {
    let (_server, work) = WorkClient::with_server().await;
    let (rooms, end) = (Arc::new(Subscriptions::default()), Arc::new(StreamEnd::new(state(1))));
    let (feed, mut events) = mpsc::channel(8);
    let (buffer, tracker) = (Arc::new(LiveBuffer::new()), SequenceTracker::new(9));
    let mut writer = FeedWriter::new(buffer, rooms.clone(), end.clone(), work, feed, tracker);
    rooms.connected();
    tokio::time::pause();
    for last in [2, 4] {
        let mut backfill = pin!(writer.backfill_once());
        assert!(poll!(&mut backfill).is_pending());
        let (_, waiters) = rooms.take_round_trip();
        for waiter in waiters {
            waiter.send(Ok(state(last))).expect("it waits");
        }
        for answered in [last, last + 1] {
            assert!(end.confirm(&state(answered), Instant::now()));
        }
        let _ = backfill.await;
        tokio::time::advance(MAX_BEHIND).await;
    }
    while let Ok(event) = events.try_recv() {
        assert!(!matches!(event, BusEvent::StreamReset));
    }
}

/// Events that were read from a new stream say nothing about those of the earlier one, some of which may be lost.
#[tokio::test]
async fn a_stream_that_is_replaced_while_it_is_read_is_not_taken_for_read() {
    let (_server, work) = WorkClient::with_server().await;
    let replaced = State { epoch: "f".to_owned(), ..state(1) };
    let forgotten = State { first: 4, ..state(5) };
    for (then, is_read, gap) in [(state(6), true, None), (replaced, false, None), (forgotten, true, Some(Offset(3)))] {
        let (rooms, end) = (Arc::new(Subscriptions::default()), Arc::new(StreamEnd::new(state(5))));
        let (feed, mut events) = mpsc::channel(8);
        let (buffer, tracker) = (Arc::new(LiveBuffer::new()), SequenceTracker::new(1));
        let mut writer = FeedWriter::new(buffer, rooms.clone(), end, work.clone(), feed, tracker);
        rooms.connected();
        let answers = async {
            let mut answers = [state(5), then].into_iter();
            loop {
                let (_, waiters) = rooms.take_round_trip();
                for waiter in waiters {
                    waiter.send(Ok(answers.next().expect("two questions"))).expect("it waits");
                }
                tokio::task::yield_now().await;
            }
        };
        let outcome = tokio::select! {
            outcome = writer.backfill_once() => outcome,
            _ = answers => panic!("it goes on"),
        };
        assert_eq!(matches!(outcome, Ok(Ok(()))), is_read);
        assert_eq!(writer.tracker.floor() == 5, is_read);
        let told = std::iter::from_fn(|| events.try_recv().ok()).find_map(|event| match event {
            BusEvent::Gap(through) => Some(through),
            _ => None,
        });
        assert_eq!(told, gap);
    }
}
