//! Commands on keys, in the form in which they are sent to a server.
use bb8_redis::redis::{Cmd, Pipeline, cmd};
use rollcall_schema::key;

use super::scripts::{Script, Scripts};

/// A command whose keys a cluster has on one node.
#[derive(Clone, Debug)]
pub(super) struct KeyCommand {
    /// The keys of the command; there is at least one.
    pub(super) keys: Vec<String>,
    what: What,
}

#[derive(Clone, Debug)]
enum What {
    /// A command with its key and arguments.
    Plain(Cmd),
    /// A script with the arguments after its keys.
    Script(Script, Vec<String>),
    /// A script that does nothing after its caller's deadline.
    Timed(Script, Vec<String>),
}

impl KeyCommand {
    /// Creates a command on one key.
    pub(super) fn plain(name: &str, key: String, arguments: &[&str]) -> Self {
        let mut command = cmd(name);
        command.arg(&key).arg(arguments);
        Self { keys: vec![key], what: What::Plain(command) }
    }

    pub(super) fn script(script: Script, keys: Vec<String>, arguments: Vec<String>) -> Self {
        Self { keys, what: What::Script(script, arguments) }
    }

    /// Creates a script whose source begins with `late.lua`.
    pub(super) fn timed(script: Script, keys: Vec<String>, arguments: Vec<String>) -> Self {
        Self { keys, what: What::Timed(script, arguments) }
    }

    /// Adds the command to a pipeline. `deadline` is a time of the server's clock in microseconds.
    pub(super) fn add_to(&self, pipeline: &mut Pipeline, scripts: &Scripts, deadline: u128) {
        let begin = |script: &Script| {
            let mut command = cmd("EVALSHA");
            command.arg(scripts.hash(*script)).arg(self.keys.len()).arg(&self.keys);
            command
        };
        let command = match &self.what {
            What::Plain(command) => command.clone(),
            What::Script(script, arguments) => begin(script).arg(arguments).take(),
            What::Timed(script, arguments) => {
                begin(script).arg(deadline.to_string()).arg(key::TTL_SECONDS).arg(arguments).take()
            }
        };
        pipeline.add_command(command);
    }
}
