//! After the faults a cluster comes to rest: which conditions must hold then, and how long that may take.
//!
//! Invariant: each wait ends when its condition holds; at its limit it returns what does not hold.

use std::collections::BTreeSet;
use std::io;
use std::thread;
use std::time::{Duration, Instant};

use rollcall_loadtest::until_empty;
use rollcall_loadtest::view::{Agents, States};

use super::aftermath::Aftermath;
use super::agent::Stage;
use super::cluster::Cluster;
use super::journal::{SetStates, Somebody, Told, locked};

/// How long the nodes may take to close every connection whose session has ended or moved to another connection, and
/// later to write and publish that all agents left.
pub(super) const QUIESCENCE: Duration = Duration::from_secs(20);
/// How long nothing must change before the cluster is at rest.
const QUIET: Duration = Duration::from_millis(400);
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Waits until every open connection owns its session. A connection whose session went to another connection, or ended
/// with its node's death, must have been closed. Returns the connections that still do not own their sessions.
pub(super) fn until_owned(cluster: &Cluster, stage: &Stage) -> io::Result<Vec<String>> {
    let strays = until_empty(QUIESCENCE, || {
        let present = stage.journal.present().clone();
        let owners = cluster.owners(&stage.classrooms)?;
        Ok(present.into_iter().filter(|(sid, _)| !owners.contains(sid)).collect())
    })?;
    let strays = of_present(stage, strays).into_iter();
    Ok(strays
        .map(|Somebody { who, .. }| format!("{who} is still connected, but the session is not its own any more"))
        .collect())
}

/// Returns the findings about connections, by sid, without those of connections that have ended since.
fn of_present<T>(stage: &Stage, found: Vec<(String, T)>) -> Vec<T> {
    let present = stage.journal.present();
    found.into_iter().filter(|(sid, _)| present.contains_key(sid)).map(|(_, found)| found).collect()
}

/// Waits until the view of every open connection is right (PROTOCOL 2). If no node knows of a session any more, no left
/// of it can come, so views may keep it. Returns the views that are still wrong.
pub(super) fn until_whole(cluster: &Cluster, stage: &Stage, aftermath: &Aftermath) -> io::Result<Vec<String>> {
    let wrong = until_empty(QUIESCENCE, || {
        let present = stage.journal.present().clone();
        let there = cluster.agents(&stage.classrooms)?;
        let states = cluster.states(&stage.classrooms)?;
        let forgotten = match aftermath.loss.gone.is_empty() {
            true => BTreeSet::new(),
            false => aftermath.forgotten(&stage.journal.read()),
        };
        let wrong = present.into_iter().filter_map(|(sid, Somebody { who, session, classroom, progress })| {
            let progress = locked(&progress);
            if !progress.listed {
                return Some((sid, format!("{who} was never answered who is there")));
            }
            let (nobody, nothing) = (Agents::new(), States::new());
            let view = progress.view.without(&forgotten);
            let difference = view.difference(there.get(&classroom).unwrap_or(&nobody));
            let other_states = || view.other_states(states.get(&classroom).unwrap_or(&nothing), session);
            Some((sid, format!("{who} {}", difference.or_else(other_states)?)))
        });
        Ok(wrong.collect())
    })?;
    Ok(of_present(stage, wrong))
}

/// Waits until the row and the keys of every open connection agree with what its client was told of its lesson, also by
/// an error, and the user's latest connection in a lesson has the field. Returns what still disagrees. If no database
/// and no node knows of the field's connection any more, nobody can tell that it is not a guest's, so the field stays.
pub(super) fn until_told(cluster: &Cluster, stage: &Stage, aftermath: &Aftermath) -> io::Result<Vec<String>> {
    let lessons = stage.lessons.concat();
    let wrong = until_empty(QUIESCENCE, || {
        let present = stage.journal.present().clone();
        let (rows, fields) = (cluster.memberships(&stage.classrooms)?, cluster.fields(&lessons)?);
        let connections = stage.journal.read();
        let mut wrong = Vec::new();
        for due in cluster.due_fields(&lessons)?.into_iter().filter(|due| !fields.contains(due)) {
            let Some((name, sid)) = due.rsplit_once(' ') else { continue };
            let other = fields.iter().find(|field| field.starts_with(name));
            if other.is_none_or(|other| !aftermath.forgets_field(other, &connections)) {
                wrong.push((sid.to_owned(), format!("Redis lacks {due}, and has {other:?}")));
            }
        }
        for (sid, Somebody { who, progress, .. }) in present {
            let told = match &locked(&progress).told {
                Told::Unknown => continue,
                Told::None => None,
                Told::In(lesson) => Some(lesson.clone()),
            };
            if let Some(row) = rows.get(&sid).filter(|row| **row != told) {
                wrong.push((sid.clone(), format!("{who} was told to be in {told:?}, its row says {row:?}")));
            }
            let of_this = |field: &&String| field.ends_with(&format!(" -> {sid}"));
            let is_told = |field: &String| told.as_ref().is_some_and(|told| field.contains(&format!("_{told}: ")));
            for field in fields.iter().filter(of_this).filter(|field| !is_told(field)) {
                wrong.push((sid.clone(), format!("{who} was told to be in {told:?}, and has the field {field}")));
            }
        }
        Ok(wrong)
    })?;
    Ok(of_present(stage, wrong))
}

/// Returns the open sessions whose state is wrong. The state must be the last one that was acknowledged with a success,
/// or one that was sent after it. Sessions from before a failover of the database are not checked.
pub(super) fn states_that_are_not_the_last(cluster: &Cluster, stage: &Stage, doubtful: i64) -> io::Result<Vec<String>> {
    let set = stage.journal.states();
    let states = cluster.states(&stage.classrooms)?;
    let there = cluster.agents(&stage.classrooms)?;
    let mut wrong = Vec::new();
    for (classroom, agents) in &there {
        for (session, agent) in agents.iter().filter(|(session, _)| **session > doubtful) {
            let Some(SetStates { sent, acked }) = set.get(session) else { continue };
            let shown = states.get(classroom).and_then(|states| states.get(session));
            let shown = shown.and_then(|(_, state)| state["n"].as_u64()).unwrap_or(0);
            if !(*acked..=*sent).contains(&shown) {
                wrong.push(format!(
                    "{agent} shows state {shown} in session {session}: {acked} was acknowledged, {sent} sent"
                ));
            }
        }
    }
    Ok(wrong)
}

/// Waits until no work is left and nothing changes any more: a node that runs again after a pause may still have
/// connections in its queue that ended long ago. Returns what is unfinished at the limit.
pub(super) fn until_quiet(cluster: &Cluster, classrooms: &[String], lessons: &[String]) -> io::Result<String> {
    let deadline = Instant::now() + QUIESCENCE;
    let (mut before, mut since) = (None, Instant::now());
    loop {
        let unfinished = cluster.unfinished(classrooms, lessons)?;
        let now = (unfinished.len(), cluster.connections()?, cluster.history(classrooms)?.len());
        if before != Some(now) {
            (before, since) = (Some(now), Instant::now());
        }
        let quiet = matches!(now, (0, 0, _)) && since.elapsed() >= QUIET;
        if quiet || Instant::now() >= deadline {
            return Ok(unfinished);
        }
        thread::sleep(LOOK_EVERY);
    }
}
