//! Counts and measures the pushes that a worker's agents get.

use std::collections::HashMap;

use hdrhistogram::Histogram;
use memchr::memmem::Finder;

use super::order::Listen;

const LONGEST: u64 = 600 * super::clock::SECOND;

pub(super) struct Pushes {
    listen: Listen,
    pub(super) count: u64,
    pub(super) bytes: u64,
    histogram: Histogram<u64>,
    /// How many agents have got a push, by the push's `at`. A push that all agents of `LastOf` have got is removed.
    incomplete: HashMap<u64, u32>,
    /// Finds the text before the time: in an event of the load generator, and in an event that the handler of README's
    /// example publishes.
    sent_at: [Finder<'static>; 2],
}

impl Pushes {
    pub(super) fn new() -> Self {
        Self {
            listen: Listen::Count,
            count: 0,
            bytes: 0,
            histogram: Histogram::new_with_bounds(1, LONGEST, 3).expect("valid bounds"),
            incomplete: HashMap::new(),
            sent_at: [Finder::new(b"\"at\":"), Finder::new(b"\"hand\":\"")],
        }
    }

    pub(super) fn listen(&mut self, listen: Listen) {
        self.listen = listen;
        self.count = 0;
        self.bytes = 0;
        self.histogram.reset();
        self.incomplete.clear();
    }

    pub(super) fn arrived(&mut self, payload: &[u8]) {
        self.count += 1;
        self.bytes += payload.len() as u64;
        let members = match self.listen {
            Listen::Count => return,
            Listen::Each => 1,
            Listen::LastOf(members) => members,
        };
        let Some(sent) = self.moment(payload) else {
            return;
        };
        if members > 1 {
            let arrived = self.incomplete.entry(sent).or_default();
            *arrived += 1;
            if *arrived < members {
                return;
            }
            self.incomplete.remove(&sent);
        }
        let latency = super::clock::now().saturating_sub(sent);
        self.histogram.saturating_record(latency);
    }

    pub(super) fn latencies(&self) -> Vec<(u64, u64)> {
        let recorded = self.histogram.iter_recorded();
        recorded.map(|value| (value.value_iterated_to(), value.count_at_value())).collect()
    }

    fn moment(&self, payload: &[u8]) -> Option<u64> {
        let start = self.sent_at.iter().find_map(|name| Some(name.find(payload)? + name.needle().len()))?;
        let digits = payload[start..].iter().take_while(|byte| byte.is_ascii_digit());
        Some(digits.fold(0, |number, digit| number * 10 + u64::from(digit - b'0')))
    }
}
