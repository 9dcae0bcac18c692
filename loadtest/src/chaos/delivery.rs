//! Compares the events that each connection was sent with the stream: no event comes twice, no gap is silent, and to a
//! client that resumes no offset goes back.
//!
//! A connection must have got every event of its rooms between its start and the last event that it got. Later events
//! may have been lost with the connection, and a client that resumes asks for them. If a room's subscription was late,
//! a client that does not resume gets the room's earlier events after events of other rooms. If its connection ends
//! meanwhile, the rule holds for each room alone.
//!
//! When the stream is created again, events may be lost for ever. Then a connection is compared with the stream in
//! which it began, and must have been closed by the end (PROTOCOL 2: the closes are spread over seconds). Before it is
//! closed, a client that does not resume may be sent events of the new stream twice.

use std::collections::{BTreeMap, BTreeSet};

use super::journal::{Connection, ENTERED, Seen, UPDATED};
use super::stream::{FORGED, Record, Stored};

/// The messages of a stream by their key, in the stream's order. An event of a session is there a second time if the
/// database lost what it had written about that session.
type ByKey<'a> = BTreeMap<&'a str, Vec<&'a Stored>>;

/// Returns every fault in the events that were sent, as text.
pub(super) fn faults(connections: &[Connection], record: &Record) -> Vec<String> {
    let of_epoch = |epoch| record.messages.iter().filter(move |stored| stored.epoch == epoch);
    let epochs: Vec<ByKey<'_>> = (0..record.epochs.len())
        .map(|epoch| {
            let mut by_key = ByKey::new();
            of_epoch(epoch).for_each(|stored| by_key.entry(&stored.key).or_default().push(stored));
            by_key
        })
        .collect();
    let of_one = |connection: &Connection| match of_first_stream(connection, record, &epochs) {
        Ok((epoch, first)) => of_one(&first, &of_epoch(epoch).collect::<Vec<_>>(), &epochs[epoch]),
        Err(wrong) => vec![format!("{} on node {}: {wrong}", connection.agent, connection.node)],
    };
    connections.iter().filter(|connection| connection.success.is_some()).flat_map(of_one).collect()
}

/// Returns the stream in which a connection began, and the connection's events up to the end of that stream.
fn of_first_stream(
    connection: &Connection,
    record: &Record,
    epochs: &[ByKey<'_>],
) -> Result<(usize, Connection), String> {
    let success = connection.success.as_ref();
    let told = success.and_then(|success| success.epoch.as_ref());
    let mut first = connection.clone();
    if told.is_none() {
        // Without an epoch a client cannot tell a forged message from a message of the stream.
        first.seen.retain(|seen| seen.key != FORGED);
    }
    let holding = |key: &str| epochs.iter().position(|epoch| epoch.contains_key(key));
    let begun = match told {
        Some(told) => record.epochs.iter().position(|epoch| epoch == told).ok_or(format!("no stream began {told}"))?,
        // An event whose publisher got no answer may be in two streams. So the first event that is in only one stream
        // decides.
        None => {
            let keys = || first.seen.iter().map(|seen| seen.key.as_str());
            let only =
                |key: &str| holding(key).filter(|of| epochs[of + 1..].iter().all(|epoch| !epoch.contains_key(key)));
            keys().find_map(only).or_else(|| keys().find_map(holding)).unwrap_or_default()
        }
    };
    if epochs.is_empty() {
        return Err("there was no stream at all".to_owned());
    }
    // A node that was cut off may learn late that the stream is new. Then it closes its connections.
    let of_earlier = |key: &str| !epochs[begun].contains_key(key) && holding(key).is_some_and(|epoch| epoch < begun);
    if let Some(late) = first.seen.iter().find(|seen| connection.stayed && of_earlier(&seen.key)) {
        return Err(format!("it was sent {} of an earlier stream, and was not closed", late.key));
    }
    if told.is_some() {
        // After an event of an earlier stream, offsets go on from that event's, until the connection is closed.
        first.seen.truncate(first.seen.iter().position(|seen| of_earlier(&seen.key)).unwrap_or(first.seen.len()));
    }
    first.seen.retain(|seen| !of_earlier(&seen.key));
    // An event that is in both streams counts as the earlier stream's when it comes for the first time.
    let of_later = |index: usize| {
        let key = first.seen[index].key.as_str();
        let before = || first.seen[..index].iter().filter(|before| before.key == key).count();
        // A node that does not know yet that its stream is new sends the stream's events, and sends them again once it
        // knows.
        let stored = epochs[begun].get(key).map_or(usize::MAX, Vec::len);
        let again = || told.is_none() && begun > 0 && !key.starts_with(ENTERED) && before() >= stored;
        holding(key).is_some_and(|epoch| epoch > begun)
            || epochs[begun + 1..].iter().any(|epoch| epoch.contains_key(key)) && before() > 0
            || again()
    };
    if let Some(end) = (0..first.seen.len()).find(|index| of_later(*index)) {
        if connection.stayed {
            return Err(format!("it went on to {} in another stream, and was not closed", first.seen[end].key));
        }
        first.seen.truncate(end);
    }
    match (success.and_then(|success| success.recovered), &connection.asked) {
        (Some(true), Some(asked)) if Some(&asked.epoch) != told => {
            Err(format!("it recovered from {asked:?} in the stream of {told:?}"))
        }
        _ => Ok((begun, first)),
    }
}

/// Checks the rules that hold without a stream: no event except entered comes twice, and no entered or updated of a
/// session comes after its left.
pub(super) fn faults_alone(connections: &[Connection]) -> Vec<String> {
    let gone = |update: &str, seen: &BTreeSet<String>| {
        update.split(' ').next().is_some_and(|session| seen.contains(&format!("agent.left {session}")))
    };
    let of_one = |connection: &Connection| {
        let mut seen = BTreeSet::new();
        let late = |key: &str, seen: &BTreeSet<String>| match key.strip_prefix(ENTERED) {
            Some(session) => seen.contains(&format!("agent.left {session}")),
            None => seen.contains(key) || key.strip_prefix(UPDATED).is_some_and(|update| gone(update, seen)),
        };
        let mut wrong = Vec::new();
        for key in connection.seen.iter().map(|seen| &seen.key) {
            if late(key, &seen) {
                wrong.push(format!("{} on node {}: {key} came twice or late", connection.agent, connection.node));
            }
            seen.insert(key.clone());
        }
        wrong
    };
    connections.iter().flat_map(of_one).collect()
}

fn of_one(connection: &Connection, stream: &[&Stored], by_key: &ByKey<'_>) -> Vec<String> {
    let Some(success) = &connection.success else { return Vec::new() };
    let mut wrong = Vec::new();
    // The offsets of each room, in the order of their arrival.
    let mut got: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
    let mut latest = success.offset;
    for (seen, before) in connection.seen.iter().zip(bounds(&connection.seen, by_key)) {
        let Some(stored) = by_key.get(seen.key.as_str()).and_then(|of_key| sent(of_key, seen, before, &got)) else {
            wrong.push(format!("{} is not in the stream", seen.key));
            continue;
        };
        // If NATS republishes an event very late, it is sent with the offset of the event before it.
        let late = seen.offset.is_some() && seen.offset == latest && latest > Some(stored.offset);
        if !late && seen.offset.is_some_and(|offset| offset != stored.offset) {
            wrong.push(format!("{} has offset {:?}, in the stream {}", seen.key, seen.offset, stored.offset));
        }
        if let (Some(offset), Some(last)) = (seen.offset, latest) {
            if offset <= last && !late {
                wrong.push(format!("{} came with offset {offset} after {last}", seen.key));
            }
            latest = Some(offset.max(last));
        }
        let entered = matches!(stored.session, Some((_, true)));
        let of_presence = entered || stored.key.starts_with(UPDATED);
        if of_presence && stored.sender.as_deref() == Some(connection.agent.as_str()) {
            wrong.push(format!("{} is its own", seen.key));
        }
        let room = got.entry(&stored.room).or_default();
        // A client without offsets merges the entered events by session id, so a double is no fault.
        if room.contains(&stored.offset) && !(entered && success.offset.is_none()) {
            wrong.push(format!("{} came twice: {}", seen.key, stored.offset));
        }
        room.push(stored.offset);
    }
    let in_order = success.offset.is_some() || connection.stayed;
    let of_all = got.values().flatten().max().copied();
    for (room, from) in starts(connection, &got, by_key) {
        let last = if in_order { of_all } else { got.get(room.as_str()).and_then(|got| got.iter().max().copied()) };
        let Some(last) = last else { continue };
        let missed = stream.iter().filter(|stored| {
            stored.room == room
                && (from..=last).contains(&stored.offset)
                && required(connection, stored)
                && !got.get(room.as_str()).is_some_and(|got| got.contains(&stored.offset))
        });
        let missed: Vec<String> = missed.map(|stored| format!("{} at {}", stored.key, stored.offset)).collect();
        if !missed.is_empty() {
            let got = got.get(room.as_str()).map(Vec::as_slice).unwrap_or_default();
            let missed = missed.join(", ");
            wrong.push(format!("of {room} from {from} to {last} it missed {missed}; it got {got:?}"));
        }
    }
    let who = format!("{} on node {} in session {}", connection.agent, connection.node, success.session);
    let how = format!("asked {:?}, recovered {:?}, {}", connection.asked, success.recovered, connection.end);
    wrong.into_iter().map(|wrong| format!("{who}: {wrong} ({how})")).collect()
}

/// Returns, for each push, the offset of the next push of its room whose event is in the stream only once.
fn bounds(seen: &[Seen], by_key: &ByKey<'_>) -> Vec<Option<u64>> {
    let mut next: BTreeMap<&str, u64> = BTreeMap::new();
    let bound = |seen: &Seen| {
        let of_key = by_key.get(seen.key.as_str())?;
        let room = of_key.first()?.room.as_str();
        let bound = next.get(room).copied();
        if let [only] = of_key[..] {
            next.insert(room, only.offset);
        }
        bound
    };
    let mut bounds: Vec<_> = seen.iter().rev().map(bound).collect();
    bounds.reverse();
    bounds
}

/// Finds the stored message that a connection was sent, among those with one key. A push with an offset names its
/// message. A push without an offset is the next message after those that the connection got of the room, or any
/// message that the connection did not get. `before` is the offset of the message that the connection was sent next.
fn sent<'a>(
    of_key: &[&'a Stored],
    seen: &Seen,
    before: Option<u64>,
    got: &BTreeMap<&str, Vec<u64>>,
) -> Option<&'a Stored> {
    let last = of_key.last()?;
    if let Some(offset) = seen.offset {
        return of_key.iter().find(|stored| stored.offset == offset).or(Some(last)).copied();
    }
    let got = got.get(last.room.as_str()).map(Vec::as_slice).unwrap_or_default();
    let new: Vec<&Stored> = of_key.iter().copied().filter(|stored| !got.contains(&stored.offset)).collect();
    let early: Vec<&Stored> =
        new.iter().copied().filter(|stored| before.is_none_or(|before| stored.offset < before)).collect();
    let next = got.iter().max().and_then(|known| early.iter().find(|stored| stored.offset > *known));
    next.or(early.last()).or(new.last()).or(Some(last)).copied()
}

/// Returns, for each room of a connection, the first offset from which the connection must have got every event.
fn starts(connection: &Connection, got: &BTreeMap<&str, Vec<u64>>, by_key: &ByKey<'_>) -> Vec<(String, u64)> {
    let Some(success) = &connection.success else { return Vec::new() };
    let first = |room: &str| got.get(room).and_then(|got| got.first().copied());
    let classroom = format!("classroom.{}", connection.classroom);
    let start = success.offset.map(|offset| offset + 1).or_else(|| first(&classroom));
    let mut starts: Vec<_> = start.map(|start| (classroom, start)).into_iter().collect();
    let resumed = connection.asked.as_ref().filter(|_| success.recovered == Some(true));
    for (lesson, pushes) in &connection.lessons {
        let room = format!("lesson.{lesson}");
        let resumed = resumed.filter(|asked| asked.lesson.is_some());
        if resumed.is_some() && pushes.is_some() {
            // A connection that resumed may get the events that it missed in a lesson after the ack of its next join.
            // It need not have got the events in between.
            continue;
        }
        // A connection that joins later does not know the offset of its join. It may get events before the ack.
        let joined = connection.seen.iter().skip(pushes.unwrap_or(0));
        let joined = joined.filter_map(|seen| by_key.get(seen.key.as_str())?.first());
        let first = joined.filter(|stored| stored.room == room).map(|stored| stored.offset).next();
        let start = resumed.map(|asked| asked.offset + 1).or(first);
        starts.extend(start.map(|start| (room, start)));
    }
    starts
}

/// Returns whether a member of the room must get this event. Of its own events, an agent gets only the left of an
/// earlier session.
fn required(connection: &Connection, stored: &Stored) -> bool {
    let Some(success) = &connection.success else { return false };
    let own = stored.sender.as_deref() == Some(connection.agent.as_str());
    !own || matches!(stored.session, Some((session, false)) if session < success.session)
}

#[cfg(test)]
mod tests;
