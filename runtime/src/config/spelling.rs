//! Finds unknown names of settings, and the settings that the operator may have meant.
//!
//! Invariant: a variable that is not similar to a setting's variable is not reported. Kubernetes gives each pod
//! variables of its services, which may begin like the variables of settings.
use std::ffi::OsString;

use super::names::{self, Setting};

/// How many letters of similar names may differ.
const FAR: usize = 2;
/// The beginning of the variables of Rollcall's own settings.
const PREFIX: &str = "ROLLCALL_";

/// Returns the known name that is most similar to this name, if any is similar.
pub(super) fn similar(written: &str, known: impl Iterator<Item = String>) -> Option<String> {
    let distance = |name: String| (strsim::osa_distance(written, &name), name);
    known.map(distance).filter(|(distance, _)| *distance <= FAR).min().map(|(_, name)| name)
}

/// Returns the variables of the environment that look like a setting's variable but are none, each with what is wrong and
/// what to write instead.
#[must_use]
pub fn misspelt(environment: impl Iterator<Item = (OsString, OsString)>) -> Vec<(String, String)> {
    let told = |name: &str| Some((name.to_owned(), format!("this variable is not known; {}", advice(name)?)));
    let mut told: Vec<_> = environment.filter_map(|(name, _)| told(name.to_str()?)).collect();
    told.sort_unstable();
    told
}

fn advice(name: &str) -> Option<String> {
    let rest = name.strip_prefix(PREFIX).filter(|_| !variables().any(|known| known == name))?;
    if variables().any(|known| known == rest) {
        return Some(format!("write {rest}"));
    }
    let plain = name.strip_suffix("_FILE").filter(|plain| names::ALL.iter().any(|setting| setting.name == *plain));
    match plain {
        Some(plain) => Some(format!("only secrets and addresses may be in a file of their own; write {plain}")),
        None => similar(name, variables()).map(|known| format!("a similar one is {known}")),
    }
}

/// Returns the variables of all settings.
fn variables() -> impl Iterator<Item = String> {
    let of = |setting: &Setting| {
        let file = setting.may_be_in_file().then(|| format!("{}_FILE", setting.name));
        [Some(setting.name.to_owned()), file]
    };
    names::ALL.iter().flat_map(of).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_variable_is_told_with_what_was_meant() {
        let found = |names: &[&str]| misspelt(names.iter().map(|name| (name.into(), OsString::new())));
        let told = |name: &str, advice: &str| {
            assert_eq!(found(&[name]), [(name.to_owned(), format!("this variable is not known; {advice}"))]);
        };
        told("ROLLCALL_MAX_CONECTIONS", "a similar one is ROLLCALL_MAX_CONNECTIONS");
        told("ROLLCALL_HS256_SECERT_FILE", "a similar one is ROLLCALL_HS256_SECRET_FILE");
        told("ROLLCALL_DATABASE_URL", "write DATABASE_URL");
        told("ROLLCALL_NATS_URL_FILE", "write NATS_URL_FILE");
        told("ROLLCALL_LISTEN_FILE", "only secrets and addresses may be in a file of their own; write ROLLCALL_LISTEN");
        // These are variables of services named rollcall and rollcall-admin, and of other programs.
        let of_others = [
            "ROLLCALL_PORT",
            "ROLLCALL_SERVICE_HOST",
            "ROLLCALL_SERVICE_PORT_CLIENTS",
            "ROLLCALL_PORT_80_TCP_ADDR",
            "ROLLCALL_ADMIN_SERVICE_PORT",
            "ROLLCALL_ADMIN_PORT",
            "ROLLCALL_COLOUR",
            "REDIS_URI",
        ];
        assert_eq!(found(&of_others), []);
        let known: Vec<_> = variables().collect();
        assert_eq!(found(&known.iter().map(String::as_str).collect::<Vec<_>>()), []);
    }
}
