//! Limits how many lines an outage writes to the log.
//!
//! A failure for one client, room or row often happens for all of them at once, and again with each try. So each place
//! in the code may write [`MAX_LINES`] lines in [`WINDOW`]. Further lines are counted and left out. Lines below INFO
//! are not limited, because they are written only if an operator asked for them. Lines that say who changed something
//! are not limited either.
use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tracing::{Event, Level, Metadata, callsite::Identifier, level_filters::LevelFilter, subscriber::Interest};
use tracing_subscriber::layer::{Context, Filter};

use rollcall_base::{log_limit::AUDIT, names};

const WINDOW: Duration = Duration::from_secs(10);
const MAX_LINES: u32 = 10;

/// A filter that stops events before they are written.
#[derive(Default)]
pub(super) struct LogFlood {
    /// When the window of each place in the code began, and how many lines the place has written since then.
    places: Mutex<HashMap<Identifier, (Instant, u32)>>,
}

impl LogFlood {
    fn admits(&self, place: Identifier, now: Instant) -> bool {
        let mut places = self.places.lock();
        let (begun, lines) = places.entry(place).or_insert((now, 0));
        if now.duration_since(*begun) >= WINDOW {
            (*begun, *lines) = (now, 0);
        }
        *lines += 1;
        *lines <= MAX_LINES
    }
}

impl<S> Filter<S> for LogFlood {
    fn enabled(&self, _: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        true
    }

    fn callsite_enabled(&self, _: &'static Metadata<'static>) -> Interest {
        // The library requires that a place is asked whether it is enabled before one of its events may be disabled.
        Interest::sometimes()
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::TRACE)
    }

    fn event_enabled(&self, event: &Event<'_>, _: &Context<'_, S>) -> bool {
        let metadata = event.metadata();
        let limited = *metadata.level() <= Level::INFO && metadata.target() != AUDIT;
        let admitted = !limited || self.admits(metadata.callsite(), Instant::now());
        if !admitted {
            metrics::counter!(names::LOG_LINES_OMITTED).increment(1);
        }
        admitted
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    use tracing::Subscriber;
    use tracing_subscriber::{Layer, layer::SubscriberExt};

    use super::*;

    /// Counts the events that pass the filter.
    struct Written(Arc<AtomicUsize>);

    impl<S: Subscriber> Layer<S> for Written {
        fn on_event(&self, _: &Event<'_>, _: Context<'_, S>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn each_place_writes_a_few_lines_and_then_none_for_a_while() {
        let written = Arc::new(AtomicUsize::new(0));
        let subscriber =
            tracing_subscriber::registry().with(Written(Arc::clone(&written)).with_filter(LogFlood::default()));
        tracing::subscriber::with_default(subscriber, || {
            for round in 0..1_000 {
                tracing::warn!(round, "the backend is away");
                tracing::error!(round, "and so is another");
                tracing::debug!(round, "asked for");
                tracing::info!(target: AUDIT, round, "a call");
            }
        });
        assert_eq!(written.load(Ordering::Relaxed), 2_000 + 2 * MAX_LINES as usize);
    }
}
