//! `rollcall check` checks the configuration and every backend. It prints one line for each, and for a failure also
//! what to change.
use std::{fmt, sync::Arc, time::Duration};

use tokio::time::timeout;

use crate::{
    auth::Keyring,
    config::{Config, Database, names},
    http_client::egress::Egress,
    node::{self, StartError},
};
use rollcall_base::redacted;
use rollcall_bus::Bus;
use rollcall_keys::LessonKeys;
use rollcall_store::{Store, StoreError};

/// How long a backend may take to answer.
const TIMEOUT: Duration = Duration::from_secs(3);
/// RFC 7518 asks for a secret of at least as many bits as the hash of HS256 has.
const SECRET_BYTES: usize = 32;

/// The result of the check of one part.
#[derive(Clone, Debug, PartialEq, Eq)]
enum CheckOutcome {
    Fine,
    /// The part works, but the operator should know this remark.
    Doubtful(String),
    /// The part does not work. The text says why, and what to change.
    Broken(String),
}

/// One line of the output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    part: &'static str,
    place: String,
    verdict: CheckOutcome,
}

impl Finding {
    /// Returns the finding about an unknown variable, with advice on what to write instead.
    pub(super) fn of_variable((name, advice): (String, String)) -> Self {
        Self { part: "environment", place: name, verdict: CheckOutcome::Doubtful(advice) }
    }

    /// Returns whether the gateway would not start, or would not work.
    #[must_use]
    pub fn broken(&self) -> bool {
        matches!(self.verdict, CheckOutcome::Broken(_))
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (word, remark) = match &self.verdict {
            CheckOutcome::Fine => ("ok", None),
            CheckOutcome::Doubtful(remark) => ("note", Some(remark)),
            CheckOutcome::Broken(remark) => ("FAIL", Some(remark)),
        };
        write!(f, "{word:<5} {:<13} {}", self.part, self.place)?;
        // A backend's message may have several lines.
        remark.map_or(Ok(()), |remark| write!(f, ": {}", remark.replace(['\n', '\r'], " ")))
    }
}

/// The backends that were connected, and the errors of the others.
pub struct ConnectedBackends {
    /// The SQL database.
    pub store: Result<Arc<dyn Store>, StartError>,
    /// Redis.
    pub kv: Result<Arc<dyn LessonKeys>, StartError>,
    /// The event stream.
    pub bus: Result<Arc<dyn Bus>, StartError>,
}

/// Checks everything except the configuration's own values, which were checked when the configuration was read.
pub async fn check(config: &Config, reached: ConnectedBackends) -> Vec<Finding> {
    let ConnectedBackends { store, kv, bus } = reached;
    let backends = &config.backends;
    let in_process = || "in process".to_owned();
    let listeners = format!("listens on {}, admin on {}", config.listen, config.admin_listen);
    let database = match &backends.database {
        Database::Sqlite(path) => format!("sqlite:{}", path.display()),
        Database::Postgres(url) => url.to_string(),
    };
    let keys = backends.redis.as_ref().map_or_else(in_process, |redis| redis.url.to_string());
    let stream = backends.nats.as_ref().map_or_else(in_process, |nats| nats.url.to_string());
    let protection = store.as_ref().ok().and_then(|store| store.protection());
    let database = protection.map_or(database.clone(), |protection| format!("{database}, {protection}"));
    let mut findings = vec![
        Finding { part: "configuration", place: listeners, verdict: nodes(config) },
        Finding { part: "database", place: database, verdict: verdict(store, tables).await },
        Finding { part: "keys", place: keys, verdict: verdict(kv, async |kv| kv.ping().await.map(fine)).await },
        Finding { part: "bus", place: stream, verdict: verdict(bus, async |bus| bus.probe().await.map(fine)).await },
    ];
    if let Some(too_few) = config.access.too_few_files.clone() {
        let verdict = CheckOutcome::Doubtful(too_few);
        findings.push(Finding { part: "open files", place: names::MAX_CONNECTIONS.name.into(), verdict });
    }
    match node::egress(&config.egress) {
        Ok(egress) => findings.extend(tokens(config, &egress).await),
        Err(error) => {
            let place = config.egress.ca_file.as_ref().map_or_else(String::new, |path| path.display().to_string());
            findings.push(Finding { part: "authorities", place, verdict: CheckOutcome::Broken(error.why) });
        }
    }
    if let Some(tls) = &config.tls {
        let verdict = match tls.read() {
            Ok(certificate) => certificate.problem().map_or(CheckOutcome::Fine, |why| CheckOutcome::Broken(why.into())),
            Err(error) => CheckOutcome::Broken(error.to_string()),
        };
        findings.push(Finding { part: "certificate", place: tls.certificate.display().to_string(), verdict });
    }
    // A question would be about a client that does not exist.
    let asked = config.access.authz.iter().map(|authz| ("authorization", &authz.url));
    // An event would report something that did not happen.
    let asked = asked.chain(config.webhook.iter().map(|webhook| ("webhook", &webhook.url)));
    for (part, url) in asked {
        let place = format!("{} (not asked)", redacted(url));
        findings.push(Finding { part, place, verdict: CheckOutcome::Fine });
    }
    for function in config.functions.iter().flat_map(|config| &config.functions) {
        // A call would report an event of a client that does not exist.
        let place = format!("{} at {} (not asked)", function.event, redacted(&function.url));
        findings.push(Finding { part: "function", place, verdict: CheckOutcome::Fine });
    }
    if let Some(traces) = &config.traces {
        let place = format!("{} (not asked)", redacted(&traces.url));
        findings.push(Finding { part: "traces", place, verdict: CheckOutcome::Fine });
    }
    if let Some(mixpanel) = &config.mixpanel {
        // A request to Mixpanel would add an event to the project's statistics.
        let place = format!("{} (not asked)", redacted(&mixpanel.url));
        findings.push(Finding { part: "mixpanel", place, verdict: CheckOutcome::Fine });
    }
    findings
}

fn nodes(config: &Config) -> CheckOutcome {
    match config.backends.database {
        Database::Postgres(_) if config.backends.standalone() => CheckOutcome::Doubtful(
            "one node only, because keys or bus are in process; several need REDIS_URL and NATS_URL".into(),
        ),
        _ => CheckOutcome::Fine,
    }
}

fn fine((): ()) -> CheckOutcome {
    CheckOutcome::Fine
}

/// Checks that the tables are up to date and that the gateway may use them. The check changes no table.
async fn tables(store: Arc<dyn Store>) -> Result<CheckOutcome, StoreError> {
    Ok(match store.missing_migrations().await?[..] {
        [] => store.missing_rights().await?.map_or(CheckOutcome::Fine, CheckOutcome::Broken),
        ref missing => CheckOutcome::Doubtful(format!(
            "migrations are missing ({}): the next start makes them, or `rollcall migrate` as the owner of the tables",
            missing.join(", ")
        )),
    })
}

async fn verdict<T: ?Sized, E: fmt::Display>(
    reached: Result<Arc<T>, StartError>,
    ask: impl AsyncFnOnce(Arc<T>) -> Result<CheckOutcome, E>,
) -> CheckOutcome {
    let backend = match reached {
        Ok(backend) => backend,
        Err(StartError { why, hint, .. }) => return CheckOutcome::Broken(format!("{why}; {hint}")),
    };
    match timeout(TIMEOUT, ask(backend)).await {
        Ok(Ok(verdict)) => verdict,
        Ok(Err(error)) => CheckOutcome::Broken(error.to_string()),
        Err(_) => CheckOutcome::Broken(format!("no answer within {TIMEOUT:?}; is it stopped, or behind a firewall?")),
    }
}

/// Returns one line for the shared secret, and one for each issuer.
async fn tokens(config: &Config, egress: &Egress) -> Vec<Finding> {
    let finding = |place: String, verdict| Finding { part: "tokens", place, verdict };
    let mut findings = Vec::new();
    if let Some(path) = &config.keys.development {
        findings.push(finding(format!("development secret {}", path.display()), CheckOutcome::Fine));
    }
    if let Some(secret) = &config.keys.sources.hs256 {
        let verdict = match secret.reveal().len() {
            SECRET_BYTES.. => CheckOutcome::Fine,
            _ => CheckOutcome::Doubtful(format!("use {SECRET_BYTES} random bytes or more, a short one can be guessed")),
        };
        findings.push(finding("ROLLCALL_HS256_SECRET".into(), verdict));
    }
    let sources = match config.keys.load() {
        Ok(sources) => sources,
        Err(error) => {
            findings.push(finding("secret".into(), CheckOutcome::Broken(error.to_string())));
            return findings;
        }
    };
    let mut faults = Keyring::new(sources, egress).load().await;
    for (issuer, location) in &config.keys.sources.jwks {
        let fault = faults.iter().position(|fault| fault.issuer == *issuer).map(|at| faults.swap_remove(at));
        let verdict = fault.map_or(CheckOutcome::Fine, |fault| {
            CheckOutcome::Broken(format!("{}; correct ROLLCALL_JWKS, or what is there", fault.error))
        });
        findings.push(finding(format!("{issuer} at {location}"), verdict));
    }
    findings
}

#[cfg(test)]
mod tests {
    use std::{
        collections::{BTreeSet, HashMap},
        ffi::OsString,
    };

    use super::*;
    use crate::config;
    use rollcall_bus::memory::{LogLimits, MemoryBus};
    use rollcall_keys::memory::MemoryKeys;
    use rollcall_store::{Schema, sqlite::SqliteStore};

    fn config(variables: &[(&str, &str)]) -> Config {
        let variables: HashMap<_, _> = variables.iter().copied().collect();
        let environment = |name: &str| variables.get(name).map(OsString::from);
        let read = config::parse([OsString::from("rollcall")], &environment, &BTreeSet::new());
        read.unwrap().1
    }

    fn away(what: &'static str) -> StartError {
        StartError { what: what.into(), why: "connection\nrefused".into(), hint: "start it".into() }
    }

    async fn lines(config: &Config, reached: ConnectedBackends) -> Vec<String> {
        check(config, reached).await.iter().map(ToString::to_string).collect()
    }

    #[tokio::test]
    async fn every_part_has_a_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.db");
        let store = SqliteStore::open(&path).unwrap();
        assert_eq!(store.missing_migrations().await.unwrap(), ["0001_presence"]);
        let unmade = tables(Arc::new(SqliteStore::open(&path).unwrap())).await.unwrap();
        assert!(matches!(unmade, CheckOutcome::Doubtful(why) if why.contains("0001_presence")));
        assert_eq!(store.missing_migrations().await.unwrap(), ["0001_presence"], "a check makes none");
        store.migrate().await.unwrap();
        let (bus, _feed) = MemoryBus::start(LogLimits::default());
        let functions = folder.path().join("functions.toml");
        std::fs::write(&functions, "[[function]]\nevent = \"vote\"\nurl = \"http://127.0.0.1:1/vote?key=hunter2\"")
            .unwrap();
        let config = config(&[
            ("DATABASE_URL", &format!("sqlite:{}", path.display())),
            ("ROLLCALL_HS256_SECRET", "short"),
            ("ROLLCALL_JWKS", "a=/nowhere/a.json"),
            ("ROLLCALL_MIXPANEL_TOKEN", "hunter2"),
            ("ROLLCALL_FUNCTIONS", functions.to_str().unwrap()),
            ("ROLLCALL_FUNCTIONS_SECRET", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"),
            ("ROLLCALL_AUTHZ_URL", "http://127.0.0.1:1/authz?key=hunter2"),
            ("ROLLCALL_WEBHOOK_URL", "http://127.0.0.1:1/webhook?key=hunter2"),
            ("ROLLCALL_WEBHOOK_SECRET", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"),
            // This is more than the number of files that any machine can open.
            ("ROLLCALL_MAX_CONNECTIONS", &usize::MAX.to_string()),
        ]);
        let reached = ConnectedBackends {
            store: Ok(Arc::new(store)),
            kv: Ok(Arc::new(MemoryKeys::new())),
            bus: Ok(Arc::new(bus)),
        };
        let lines = lines(&config, reached).await;
        let begins = |start: &str| assert!(lines.iter().any(|line| line.starts_with(start)), "{start} in {lines:#?}");
        begins("ok    configuration listens on 127.0.0.1:8080, admin on 127.0.0.1:9090");
        begins("ok    database      sqlite:/");
        begins("ok    keys          in process");
        begins("ok    bus           in process");
        begins("note  tokens        ROLLCALL_HS256_SECRET: use 32");
        begins("FAIL  tokens        a at /nowhere/a.json: cannot read it");
        begins("ok    function      vote at http://127.0.0.1:1/vote");
        begins("ok    mixpanel      https://api.mixpanel.com/track");
        begins("ok    authorization http://127.0.0.1:1/authz");
        begins("ok    webhook       http://127.0.0.1:1/webhook");
        begins("note  open files    ROLLCALL_MAX_CONNECTIONS: the limit of open files allows ");
        assert_eq!(lines.len(), 11);
        assert!(!lines.concat().contains("hunter2") && !lines.concat().contains("MfKQ"));
    }

    #[tokio::test]
    async fn a_backend_that_is_away_is_named_with_a_hint_and_without_its_password() {
        let config = config(&[
            ("DATABASE_URL", "postgres://me:hunter2@db/x"),
            ("REDIS_URL", "redis://:hunter2@r:6379"),
            ("ROLLCALL_HS256_SECRET", "0123456789012345678901234567890123456789"),
        ]);
        let (bus, _feed) = MemoryBus::start(LogLimits::default());
        let reached =
            ConnectedBackends { store: Err(away("PostgreSQL")), kv: Err(away("Redis")), bus: Ok(Arc::new(bus)) };
        let findings = check(&config, reached).await;
        let lines: Vec<_> = findings.iter().map(ToString::to_string).collect();
        assert!(lines[0].starts_with("note  configuration") && lines[0].contains("one node only"), "{lines:#?}");
        assert_eq!(lines[1], "FAIL  database      postgres://db/x: connection refused; start it");
        assert_eq!(lines[2], "FAIL  keys          redis://r:6379: connection refused; start it");
        assert_eq!(findings.iter().filter(|finding| finding.broken()).count(), 2);
    }
}
