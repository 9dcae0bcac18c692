//! The events that were read and are not delivered yet, by classroom.
//!
//! Invariant: a classroom's events are sent in their order, and no two requests with events of one classroom are in
//! flight at the same time.
use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Instant,
};

use rollcall_schema::{ClassroomId, Offset};

use super::{backoff::below, log::LoggedEvent};

/// The maximum number of events in a request (PROTOCOL 10).
pub(super) const MAX_BATCH: usize = 500;
/// How often a classroom's events must be refused when they are sent alone, before it may be parked.
const REFUSALS: u32 = 2;

/// The events that were read and are not delivered yet.
#[derive(Default)]
pub(super) struct Pending {
    classrooms: BTreeMap<ClassroomId, Waiting>,
    events: usize,
}

#[derive(Default)]
struct Waiting {
    events: VecDeque<Arc<LoggedEvent>>,
    /// How often the events were refused alone, and when the first of these attempts began.
    refused: Option<(u32, Instant)>,
}

/// The events of one request.
pub(super) struct Batch {
    pub(super) events: Vec<Arc<LoggedEvent>>,
    /// How many of the events belong to each classroom.
    classrooms: Vec<(ClassroomId, usize)>,
}

impl Pending {
    pub(super) fn add(&mut self, event: LoggedEvent) {
        self.events += 1;
        self.classrooms.entry(event.classroom).or_default().events.push_back(Arc::new(event));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.events == 0
    }

    /// Returns how many events there are.
    pub(super) fn len(&self) -> usize {
        self.events
    }

    /// Returns how many classrooms have events.
    pub(super) fn classrooms(&self) -> usize {
        self.classrooms.len()
    }

    /// Returns the first event that is not delivered yet.
    pub(super) fn first(&self) -> Option<&LoggedEvent> {
        let heads = self.classrooms.values().filter_map(|waiting| waiting.events.front());
        heads.min_by_key(|event| event.offset).map(AsRef::as_ref)
    }

    /// Returns all events in as few requests as possible. If a classroom has more events than fit into a request, the
    /// first of them are returned.
    pub(super) fn packed(&self) -> Vec<Batch> {
        let mut batches = Vec::new();
        let mut batch = Batch { events: Vec::new(), classrooms: Vec::new() };
        for (classroom, waiting) in &self.classrooms {
            let part = waiting.events.iter().take(MAX_BATCH - batch.events.len()).cloned();
            let before = batch.events.len();
            batch.events.extend(part);
            batch.classrooms.push((*classroom, batch.events.len() - before));
            if batch.events.len() == MAX_BATCH {
                batches.push(std::mem::replace(&mut batch, Batch { events: Vec::new(), classrooms: Vec::new() }));
            }
        }
        if !batch.events.is_empty() {
            batches.push(batch);
        }
        for batch in &mut batches {
            batch.events.sort_unstable_by_key(|event| event.offset);
        }
        batches
    }

    /// Returns one request for each classroom. Classrooms whose events were refused before come first.
    pub(super) fn alone(&self) -> Vec<Batch> {
        let (refused, others): (Vec<_>, Vec<_>) =
            self.classrooms.iter().partition(|(_, waiting)| waiting.refused.is_some());
        refused.into_iter().chain(others).map(|(classroom, waiting)| one(*classroom, waiting)).collect()
    }

    /// Returns one request for each of at most `max` classrooms, which are different ones each time.
    pub(super) fn probes(&self, max: usize) -> Vec<Batch> {
        let Some(start) = Some(self.classrooms.len()).filter(|count| *count > 0).map(below) else { return Vec::new() };
        let classrooms = self.classrooms.iter().cycle().skip(start).take(self.classrooms.len().min(max));
        classrooms.map(|(classroom, waiting)| one(*classroom, waiting)).collect()
    }

    /// Removes the events of a batch that was delivered.
    pub(super) fn taken(&mut self, batch: &Batch) {
        for (classroom, count) in &batch.classrooms {
            let Some(waiting) = self.classrooms.get_mut(classroom) else { continue };
            waiting.events.drain(..*count);
            waiting.refused = None;
            self.events -= count;
            if waiting.events.is_empty() {
                self.classrooms.remove(classroom);
            }
        }
    }

    /// Records that a batch was refused in an attempt that began at this time.
    pub(super) fn refused(&mut self, batch: &Batch, began: Instant) {
        if let [(classroom, _)] = batch.classrooms[..]
            && let Some(waiting) = self.classrooms.get_mut(&classroom)
        {
            let (times, since) = waiting.refused.unwrap_or((0, began));
            waiting.refused = Some((times + 1, since));
        }
    }

    /// Returns the classrooms whose events were refused more than once while events of other classrooms were accepted.
    pub(super) fn refused_alone(&self, last_taken: Option<Instant>) -> Vec<ClassroomId> {
        let alone = |waiting: &Waiting| {
            waiting.refused.is_some_and(|(times, since)| times >= REFUSALS && last_taken.is_some_and(|at| at > since))
        };
        self.classrooms.iter().filter(|(_, waiting)| alone(waiting)).map(|(classroom, _)| *classroom).collect()
    }

    /// Returns the classroom with the most events.
    pub(super) fn largest(&self) -> Option<ClassroomId> {
        self.classrooms.iter().max_by_key(|(_, waiting)| waiting.events.len()).map(|(classroom, _)| *classroom)
    }

    /// Removes a classroom's events. Returns the offset before the first of them.
    pub(super) fn remove(&mut self, classroom: ClassroomId) -> Option<Offset> {
        let waiting = self.classrooms.remove(&classroom)?;
        self.events -= waiting.events.len();
        waiting.events.front().map(|first| Offset(first.offset.0 - 1))
    }
}

fn one(classroom: ClassroomId, waiting: &Waiting) -> Batch {
    let events: Vec<_> = waiting.events.iter().take(MAX_BATCH).cloned().collect();
    Batch { classrooms: vec![(classroom, events.len())], events }
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, time::Duration};

    use serde_json::value::RawValue;
    use uuid::Uuid;

    use super::*;

    fn room(number: u128) -> ClassroomId {
        ClassroomId(Uuid::from_u128(number))
    }

    fn pending(rooms: impl IntoIterator<Item = u128>) -> Pending {
        let mut pending = Pending::default();
        for (offset, number) in (1..).zip(rooms) {
            let event = RawValue::from_string("{}".to_owned()).unwrap();
            pending.add(LoggedEvent {
                offset: Offset(offset),
                classroom: room(number),
                reason: None,
                trace: None,
                event,
                stored: None,
            });
        }
        pending
    }

    fn offsets(batch: &Batch) -> Vec<u64> {
        batch.events.iter().map(|event| event.offset.0).collect()
    }

    #[test]
    fn few_events_are_one_request_in_their_order() {
        let mut pending = pending([2, 1, 2, 3]);
        let batches = pending.packed();
        assert_eq!((batches.len(), offsets(&batches[0])), (1, vec![1, 2, 3, 4]));
        pending.taken(&batches[0]);
        assert!(pending.is_empty() && pending.first().is_none() && pending.packed().is_empty());
    }

    #[test]
    fn a_classroom_is_in_one_request_at_a_time() {
        let mut pending = pending((0..3_000).map(|event| if event < 1_200 { 7 } else { event % 40 }));
        let mut delivered = 0;
        while !pending.is_empty() {
            let batches = pending.packed();
            let mut rooms = HashSet::new();
            for batch in &batches {
                assert!(batch.events.len() <= MAX_BATCH && batch.events.is_sorted_by_key(|event| event.offset));
                assert!(batch.classrooms.iter().all(|(room, _)| rooms.insert(*room)), "twice");
                delivered += batch.events.len();
            }
            batches.iter().for_each(|batch| pending.taken(batch));
        }
        assert_eq!((delivered, pending.len()), (3_000, 0));
    }

    #[test]
    fn a_classroom_is_refused_alone_only_while_others_are_taken() {
        let mut pending = pending([1, 2, 1]);
        let began = Instant::now();
        for batch in pending.packed() {
            pending.refused(&batch, began);
            pending.refused(&batch, began);
        }
        let later = Some(began + Duration::from_secs(1));
        assert!(pending.refused_alone(later).is_empty(), "not alone");
        let alone = pending.alone();
        pending.refused(&alone[0], began);
        assert!(pending.refused_alone(later).is_empty(), "once");
        pending.refused(&alone[0], began);
        assert!(pending.refused_alone(None).is_empty() && pending.refused_alone(Some(began)).is_empty());
        assert_eq!(pending.refused_alone(later), [room(1)]);
        assert_eq!(offsets(&pending.alone()[0]), [1, 3]);
        assert_eq!(
            (pending.remove(room(1)), pending.len(), pending.first().map(|first| first.offset)),
            (Some(Offset(0)), 1, Some(Offset(2)))
        );
    }

    #[test]
    fn probes_are_of_different_classrooms() {
        let pending = pending(0..20);
        let rooms: HashSet<_> = pending.probes(8).iter().map(|batch| batch.classrooms[0].0).collect();
        assert_eq!((rooms.len(), pending.probes(99).len(), Pending::default().probes(8).len()), (8, 20, 0));
    }
}
