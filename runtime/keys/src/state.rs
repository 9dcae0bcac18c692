//! States in which a server refuses commands: the error of each, and what an operator can do.
//!
//! Invariant: if another server may not be in the same state, the connection is given up, because after a failover the
//! same name, or the file of REDIS_URL_FILE, leads to another server.
use bb8_redis::redis::{ErrorKind, RedisError};

/// A state of a server.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct State {
    /// The beginning of the server's error.
    code: &'static str,
    /// Whether another connection may lead to a server that works.
    pub(super) reconnect: bool,
    /// What is wrong, and what to do.
    pub(super) hint: &'static str,
}

const fn state(code: &'static str, reconnect: bool, hint: &'static str) -> State {
    State { code, reconnect, hint }
}

const STATES: &[State] = &[
    state("READONLY", true, "this server is a replica: let REDIS_URL lead to the primary"),
    state("MASTERDOWN", true, "this server is a replica that lost its primary: let REDIS_URL lead to the primary"),
    state("LOADING", true, "this server still reads its data from the disk: wait until it has"),
    state("MISCONF", true, "this server cannot save its data: see its log, and make room on its disk"),
    state("NOREPLICAS", true, "this server has fewer replicas than its min-replicas-to-write: start them"),
    state("OOM", true, "this server's memory is full: raise its maxmemory"),
    state("NOAUTH", true, "this server asks for a password: write it into REDIS_URL, or the file of REDIS_URL_FILE"),
    state(
        "WRONGPASS",
        true,
        "this server refuses the user and password of REDIS_URL, or of the file of REDIS_URL_FILE",
    ),
    state("CLUSTERDOWN", true, "this server's cluster does not serve all slots: see its CLUSTER INFO"),
    state("BUSY", true, "a script runs on this server for too long: end it by SCRIPT KILL"),
    state("NOPERM", false, RIGHTS),
    state("MOVED", false, OF_A_CLUSTER),
    state("CROSSSLOT", false, OF_A_CLUSTER),
    state(NO_COMMAND, false, COMMANDS),
    state(WRONG_TYPE, false, "another program has made a key that is no hash: delete it, or set ROLLCALL_REDIS_PREFIX"),
];
/// The code of a state whose refusals contain no code.
const NO_COMMAND: &str = "(no such command)";
const COMMANDS: &str = "this server has no such command, or under another name (rename-command): it needs evalsha, script, time, \
    get, set, del, expire, exists, hget, hgetall, hset, hdel, hsetnx and hexists";
/// The code of a refusal because of a key's type.
const WRONG_TYPE: &str = "WRONGTYPE";
/// `SETTINGS.md` lists the same commands.
const RIGHTS: &str = "the user of REDIS_URL lacks a right: give it, by ACL SETUSER, its keys and all of +evalsha \
    +script|load +time +get +set +del +expire +exists +hget +hgetall +hset +hdel +hsetnx +hexists (on a cluster also +asking \
    +cluster|slots +cluster|info)";
const OF_A_CLUSTER: &str = "this server is a node of a cluster: begin REDIS_URL with redis+cluster, or rediss+cluster";

/// Returns a server's error, with what an operator can do about it, if that is known. If each command of a pipeline was
/// refused, the text is the first refusal.
pub(super) fn describe(error: &RedisError) -> String {
    let refusals = error.clone().into_server_errors();
    let first = refusals.as_deref().and_then(<[_]>::first);
    let said = first.map_or_else(|| error.to_string(), |(_, first)| first.to_string());
    match of(error) {
        Some(state) => format!("{said}; {}", state.hint),
        None => said,
    }
}

/// Adds the names of the keys to a refusal because of a key's type.
pub(super) fn with_keys(said: String, keys: &[String]) -> String {
    if said.contains(WRONG_TYPE) { format!("{said} (one of {})", keys.join(", ")) } else { said }
}

/// Returns the state that a refusal means, or `None` if it concerns only the command, or the error is not a refusal.
pub(super) fn of(error: &RedisError) -> Option<&'static State> {
    if error.kind() == ErrorKind::AuthenticationFailed {
        return find("WRONGPASS", "");
    }
    let own = error.code().and_then(|code| find(code, error.detail().unwrap_or_default()));
    own.or_else(|| {
        // In a pipeline each command may report the error.
        let several = error.clone().into_server_errors()?;
        several.iter().find_map(|(_, error)| find(error.code(), error.details().unwrap_or_default()))
    })
}

/// Finds the state of a refusal. Before Redis 7, a script whose command is refused returns `ERR ... -READONLY ...`.
/// Redis 7.0 and Valkey have other words for a missing right. A missing command has no code of its own.
fn find(code: &str, detail: &str) -> Option<&'static State> {
    let refusals = ["The user executing the script", "ACL failure in script"];
    if code == "ERR" && refusals.iter().any(|refusal| detail.starts_with(refusal)) {
        return find("NOPERM", "");
    }
    let unknown = ["unknown command", "Unknown Redis command", "Unknown command called from"];
    if code == "ERR" && unknown.iter().any(|unknown| detail.contains(unknown)) {
        return find(NO_COMMAND, "");
    }
    let tells = |state: &&State| code == state.code || (code == "ERR" && detail.contains(&format!("-{} ", state.code)));
    STATES.iter().find(tells)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_of_a_command_of_a_script_is_found_in_both_forms() {
        let hint = |code, detail| find(code, detail).map(|state| state.hint.split(' ').next_back().unwrap_or_default());
        assert_eq!(hint("READONLY", "You can't write against a read only replica."), Some("primary"));
        assert_eq!(
            hint("ERR", "Error running script (call to f_1): @user_script:3: -OOM command not"),
            Some("maxmemory")
        );
        for detail in ["unknown command 'EVALSHA', with args", "Unknown Redis command called from script script: f_1"] {
            assert_eq!(hint("ERR", detail), Some("hexists"));
        }
        assert_eq!(hint("ERR", "value is not an integer, OOM"), None);
        assert_eq!(hint("WRONGTYPE", "Operation against a key"), Some("ROLLCALL_REDIS_PREFIX"));
    }
}
