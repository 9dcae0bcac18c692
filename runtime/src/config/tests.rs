//! Tests of the places that settings are read from, and of every fault.
use std::{
    collections::{BTreeSet, HashMap},
    ffi::OsString,
};

use super::*;
use crate::auth::Location;
use rollcall_websocket::Origins;

fn read(arguments: &[&str], variables: &[(&str, &str)]) -> Result<(Task, Config), Stop> {
    let variables: HashMap<_, _> = variables.iter().copied().collect();
    let arguments = std::iter::once("rollcall").chain(arguments.iter().copied()).map(OsString::from);
    parse(arguments, &|name| variables.get(name).map(OsString::from), &BTreeSet::from(["join_lesson"]))
}

fn config(variables: &[(&str, &str)]) -> Config {
    read(&[], variables).unwrap().1
}

fn faults(arguments: &[&str], variables: &[(&str, &str)]) -> Vec<String> {
    match read(arguments, variables) {
        Err(Stop::Configuration(faults)) => faults.iter().map(ToString::to_string).collect(),
        other => panic!("no faults but {other:?}"),
    }
}

#[test]
fn the_defaults_are_those_of_the_protocol() {
    let config = config(&[]);
    assert_eq!(config.listen.to_string(), "127.0.0.1:8080");
    assert_eq!(config.admin_listen.to_string(), "127.0.0.1:9090");
    assert_eq!(config.backends.database, Database::Sqlite("rollcall.db".into()));
    assert!(config.backends.redis.is_none() && config.backends.nats.is_none() && config.backends.standalone());
    assert_eq!(config.keys.development, Some("rollcall.db.secret".into()));
    assert!(config.keys.sources.audiences.is_empty() && !config.guests && config.mixpanel.is_none());
    let presence = config.presence;
    assert_eq!((presence.lease.as_secs(), config.limits.grace.time.as_secs()), (15, 0));
    assert_eq!(presence.drain_deadline.as_secs(), 10);
    let LimitsConfig { listener, sockets, gateway, handler_timeout, max_forward, .. } = config.limits;
    assert_eq!((sockets.ping_interval.as_secs(), sockets.pong_timeout.as_secs()), (30, 5));
    assert_eq!((gateway.connect_timeout.as_secs(), handler_timeout.as_secs()), (10, 5));
    assert_eq!((listener.max_head, sockets.max_message, sockets.max_fragments), (16 << 10, 64 << 10, 1024));
    assert_eq!((sockets.max_outbound, max_forward), (256 << 10, 128 << 10));
    assert!(config.workers > 0);
    assert_eq!((&listener.origins, config.access.admission.per_client), (&Origins::SameHost, 1000));
    assert!(config.access.admission.connections > 0);
}

#[test]
fn a_flag_beats_a_variable_and_stands_before_or_after_the_command() {
    let variables = [("ROLLCALL_LISTEN", "127.0.0.1:1"), ("ROLLCALL_LEASE", "7s")];
    for arguments in [["--listen", "127.0.0.1:2", "check"], ["check", "--rollcall-listen", "127.0.0.1:2"]] {
        let (command, config) = read(&arguments, &variables).unwrap();
        assert!(matches!(command, Task::Check));
        assert_eq!(config.listen.port(), 2);
        assert_eq!(config.presence.lease, Duration::from_secs(7));
    }
}

#[test]
fn an_empty_variable_is_one_not_given() {
    let empty: Vec<_> =
        names::ALL.iter().filter(|setting| !setting.may_be_empty()).map(|setting| (setting.name, "")).collect();
    assert_eq!(format!("{:?}", config(&empty)), format!("{:?}", config(&[])));
    for off in ["", "off"] {
        assert_eq!(config(&[("ROLLCALL_SOCKETIO_PATH", off)]).limits.listener.engine_path, None, "{off:?}");
    }
}

#[test]
fn every_setting_can_be_given() {
    let config = config(&[
        ("DATABASE_URL", "postgres://me:hunter2@db/rollcall"),
        ("REDIS_URL", "redis://:hunter2@r:6379/1"),
        ("NATS_URL", "nats://n1:4222,nats://n2:4222"),
        ("ROLLCALL_REDIS_PREFIX", "app:"),
        ("ROLLCALL_JWKS", "https://a.example=https://a.example/jwks?x=1, b=/etc/b.json"),
        ("ROLLCALL_AUDIENCES", "a.example,b.example"),
        ("ROLLCALL_GUESTS", "true"),
        ("ROLLCALL_LEASE", "500ms"),
        ("ROLLCALL_DRAIN_DEADLINE", "1s"),
        ("ROLLCALL_MAX_MESSAGE", "1MiB"),
        ("ROLLCALL_ORIGINS", "https://a.example, http://b.example:8080"),
        ("ROLLCALL_TRUSTED_PROXIES", "10.0.0.0/8,::1"),
        ("ROLLCALL_PROXY_HEADER", "X-Real-Ip"),
        ("ROLLCALL_PROXY_PROTOCOL", "true"),
        ("ROLLCALL_MAX_CONNECTIONS", "7"),
        ("ROLLCALL_AUTHZ_URL", "http://authz/"),
        ("ROLLCALL_MIXPANEL_TOKEN", "hunter2"),
        ("ROLLCALL_MIXPANEL_URL", "http://127.0.0.1:1/track"),
    ]);
    assert!(matches!(&config.backends.database, Database::Postgres(url) if url.reveal().contains("hunter2")));
    assert!(!config.backends.standalone() && config.guests);
    assert_eq!(config.keys.sources.jwks[0].1, Location::Url("https://a.example/jwks?x=1".parse().unwrap()));
    assert_eq!(config.keys.sources.jwks[1], ("b".into(), Location::File("/etc/b.json".into())));
    assert_eq!(config.keys.development, None);
    assert_eq!(config.presence.drain_spread, Duration::from_millis(500), "at most half of the deadline");
    assert_eq!(config.limits.sockets.max_message, 1 << 20);
    let AccessConfig { admission, authz, .. } = &config.access;
    assert_eq!(
        config.limits.listener.origins,
        Origins::Listed(vec!["https://a.example".into(), "http://b.example:8080".into()])
    );
    assert_eq!((admission.connections, admission.proxies.trusted.len(), authz.is_some()), (7, 2, true));
    assert_eq!(admission.proxies.header, "x-real-ip");
    assert_eq!(config.mixpanel.as_ref().unwrap().token.reveal(), "hunter2");
    assert!(!format!("{config:?}").contains("hunter2"), "{config:?}");
}

#[test]
fn all_faults_are_reported_at_once_and_no_secret_with_them() {
    let faults = faults(
        &["--lease", "ten"],
        &[
            ("ROLLCALL_LISTEN", "nowhere"),
            ("ROLLCALL_ADMIN_LISTEN", "0.0.0.0:9090"),
            ("DATABASE_URL", "mysql://me:hunter2@db/x"),
            ("REDIS_URL", "hunter2"),
            ("NATS_URL", "nats://a,ws://hunter2"),
            ("ROLLCALL_JWKS", "a=/x,a=/y"),
            ("ROLLCALL_AUDIENCES", "a b"),
            ("ROLLCALL_GUESTS", "perhaps"),
            ("ROLLCALL_MAX_FRAGMENTS", "0"),
            ("ROLLCALL_MAX_MESSAGE", "64 parsecs"),
            ("ROLLCALL_PING_INTERVAL", "5s"),
            ("ROLLCALL_MIXPANEL_URL", "ftp://x"),
            ("ROLLCALL_AUTHZ_URL", "https://me:hunter2@authz.example/"),
            ("ROLLCALL_LOG", "a=b=c"),
            ("ROLLCALL_ORIGINS", "a.example"),
            ("ROLLCALL_TRUSTED_PROXIES", "10.0.0.0/99"),
            ("ROLLCALL_PROXY_HEADER", "a b"),
        ],
    );
    let named = |name: &str| faults.iter().any(|fault| fault.starts_with(&format!("{name}: ")));
    for name in [
        "ROLLCALL_LISTEN",
        "ROLLCALL_ADMIN_TOKEN",
        "DATABASE_URL",
        "REDIS_URL",
        "NATS_URL",
        "ROLLCALL_JWKS",
        "ROLLCALL_AUDIENCES",
        "ROLLCALL_GUESTS",
        "ROLLCALL_MAX_FRAGMENTS",
        "ROLLCALL_MAX_MESSAGE",
        "ROLLCALL_PONG_TIMEOUT",
        "ROLLCALL_MIXPANEL_URL",
        "ROLLCALL_AUTHZ_URL",
        "ROLLCALL_LEASE",
        "ROLLCALL_LOG",
        "ROLLCALL_ORIGINS",
        "ROLLCALL_TRUSTED_PROXIES",
        "ROLLCALL_PROXY_HEADER",
    ] {
        assert!(named(name), "{name} in {faults:#?}");
    }
    assert_eq!(faults.len(), 18, "{faults:#?}");
    assert!(!faults.concat().contains("hunter2"), "{faults:#?}");
}

#[test]
fn without_a_key_only_loopback_is_served() {
    let everywhere = [("ROLLCALL_LISTEN", "0.0.0.0:8080")];
    assert!(faults(&[], &everywhere)[0].starts_with("ROLLCALL_HS256_SECRET: no key is configured"));
    assert!(read(&["migrate"], &everywhere).is_ok(), "which needs no key");
    let with_key = [everywhere[0], ("ROLLCALL_HS256_SECRET", "s")];
    assert!(read(&[], &with_key).is_ok());
}

#[test]
fn secrets_come_from_files_and_never_from_flags() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("secret");
    std::fs::write(&path, "hunter2\n").unwrap();
    let path = path.to_str().unwrap();
    let given = config(&[("ROLLCALL_HS256_SECRET_FILE", path), ("NATS_URL_FILE", "")]);
    assert_eq!(given.keys.sources.hs256.unwrap().reveal(), "hunter2");
    assert!(faults(&[], &[("ROLLCALL_ADMIN_TOKEN_FILE", "/nowhere")])[0].contains("/nowhere"));
    assert!(faults(&[], &[("ROLLCALL_ADMIN_READ_TOKEN", "a")])[0].contains("needs ROLLCALL_ADMIN_TOKEN"));
    let short =
        faults(&[], &[("ROLLCALL_ADMIN_TOKEN", "hunter2hunter2h"), ("ROLLCALL_ADMIN_READ_TOKEN", "0123456789abcdef")]);
    assert!(short.len() == 1 && short[0].starts_with("ROLLCALL_ADMIN_TOKEN: can be guessed"), "{short:?}");
    for setting in names::ALL.iter().filter(|setting| setting.kind == names::Kind::Secret) {
        let flag = format!("--{}", setting.name.trim_start_matches("ROLLCALL_").to_lowercase().replace('_', "-"));
        assert!(matches!(read(&[&flag, "x"], &[]), Err(Stop::CommandLine(_))), "{flag}");
    }
}

#[test]
fn functions_come_with_a_secret_and_all_their_faults() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("functions.toml");
    let variables = |secret| [("ROLLCALL_FUNCTIONS", path.to_str().unwrap()), ("ROLLCALL_FUNCTIONS_SECRET", secret)];
    let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    assert!(faults(&[], &variables(secret))[0].contains("functions.toml: cannot read it"));
    std::fs::write(&path, "[[function]]\nevent = \"vote\"\nurl = \"http://host/\"\nconcurrency = 7\n").unwrap();
    let config = config(&variables(secret));
    let functions = config.functions.unwrap();
    assert_eq!((functions.functions[0].event.as_str(), functions.functions[0].concurrency), ("vote", 7));
    let found = faults(&[], &variables("hunter2"));
    assert!(found[0].starts_with("ROLLCALL_FUNCTIONS_SECRET: write 24") && !found[0].contains("hunter2"), "{found:?}");
    assert_eq!(faults(&[], &variables("")), ["ROLLCALL_FUNCTIONS_SECRET: is needed with ROLLCALL_FUNCTIONS"]);
    std::fs::write(&path, "[[function]]\nevent = \"join_lesson\"\n").unwrap();
    let found = faults(&["--lease", "ten"], &variables(""));
    assert_eq!(found.len(), 4, "{found:?}");
    assert!(found[0].contains("function 1: event: join_lesson has a handler already"), "{found:?}");
}

#[test]
fn the_commands_are_those_of_the_protocol() {
    let command = |arguments: &[&str]| read(arguments, &[]).unwrap().0;
    assert!(matches!(command(&[]), Task::Serve));
    assert!(matches!(command(&["serve"]), Task::Serve));
    assert!(matches!(command(&["migrate"]), Task::Migrate));
    let token = command(&["token", "--sub", "alice", "--role", "teacher"]);
    assert!(matches!(token, Task::Token(token) if token.role == rollcall_schema::Role::Teacher));
    let load = command(&["load", "--lessons", "l.csv", "--attendees", "a.csv"]);
    assert!(matches!(load, Task::Load(LoadArgs { lessons: Some(_), attendees: Some(_) })));
    for wrong in [&["load"][..], &["token"], &["token", "--sub", "a b"], &["fly"], &["--fly"]] {
        assert!(matches!(read(wrong, &[]), Err(Stop::CommandLine(_))), "{wrong:?}");
    }
}

#[test]
fn the_development_secret_is_made_when_the_keys_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let database = format!("sqlite:{}", folder.path().join("x.db").display());
    let config = config(&[("DATABASE_URL", &database)]);
    let secret = config.keys.load().unwrap().hs256.unwrap();
    assert_eq!(config.keys.load().unwrap().hs256, Some(secret));
    assert!(folder.path().join("x.db.secret").is_file());
}

#[test]
fn origins_are_of_pages_and_apps() {
    let origins = |text: &str| value::origins(text);
    let listed = "https://a.example:443,http://b.example:80,https://c.example:80,capacitor://localhost,app://-";
    let read = ["https://a.example", "http://b.example", "https://c.example:80", "capacitor://localhost", "app://-"];
    assert_eq!(origins(listed), Ok(Origins::Listed(read.map(str::to_owned).to_vec())), "as browsers send them");
    for wrong in
        ["null", "https://", "://x", "https://a.example/", "https://*.example", "1a://x", "a b://x", "https://a b"]
    {
        assert!(origins(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn the_proxy_protocol_needs_balancers() {
    let faults = faults(&[], &[("ROLLCALL_PROXY_PROTOCOL", "true")]);
    assert!(faults[0].starts_with("ROLLCALL_PROXY_PROTOCOL: needs ROLLCALL_TRUSTED_PROXIES"), "{faults:?}");
}

#[test]
fn certificates_of_redis_are_for_a_url_with_tls_and_come_with_their_key() {
    let files = [
        ("ROLLCALL_REDIS_CA_FILE", "/ca.crt"),
        ("ROLLCALL_REDIS_CERT", "/own.crt"),
        ("ROLLCALL_REDIS_KEY", "/own.key"),
    ];
    let [ca, certificate, key] = files;
    let with = |url, files: &[_]| [&[("REDIS_URL", url)], files].concat();
    let redis = config(&with("rediss+cluster://a,b", &files)).backends.redis.unwrap();
    assert_eq!((redis.tls.system_roots, redis.tls.files().count()), (false, 3));
    assert!(config(&with("rediss://a", &[])).backends.redis.unwrap().tls.system_roots);
    let told = |variables: &[_], expected: &str| {
        let said = faults(&[], variables);
        assert!(said.len() == 1 && said[0].contains(expected), "{said:?}");
    };
    told(&with("redis://a", &[ca]), "REDIS_URL: has to begin with rediss");
    told(&with("rediss://a", &[certificate]), "ROLLCALL_REDIS_KEY: is needed with ROLLCALL_REDIS_CERT");
    told(&with("rediss://a", &[key]), "ROLLCALL_REDIS_CERT: is needed with ROLLCALL_REDIS_KEY");
}

#[test]
fn nats_has_settings_of_its_own() {
    let config = config(&[
        ("NATS_URL", "tls://n1:4222,tls://n2:4222"),
        ("ROLLCALL_NATS_CA_FILE", "/etc/ca.pem"),
        ("ROLLCALL_NATS_CERT", "/etc/node.pem"),
        ("ROLLCALL_NATS_KEY", "/etc/node.key"),
        ("ROLLCALL_NATS_TLS_FIRST", "true"),
        ("ROLLCALL_NATS_DOMAIN", "hub"),
        ("ROLLCALL_STREAM", "SCHOOL"),
        ("ROLLCALL_STREAM_REPLICAS", "3"),
        ("ROLLCALL_STREAM_MAX_AGE", "2m"),
        ("ROLLCALL_STREAM_MAX_BYTES", "1GiB"),
        ("ROLLCALL_STREAM_STORAGE", "memory"),
    ]);
    let nats = config.backends.nats.unwrap();
    assert!(nats.tls_first && !nats.tls.system_roots && nats.tls.certificate.is_some());
    assert_eq!((nats.domain.as_deref(), nats.stream.name.as_str()), (Some("hub"), "SCHOOL"));
    assert_eq!(
        (nats.stream.replicas, nats.stream.max_age, nats.stream.max_bytes),
        (3, Duration::from_secs(120), Some(1 << 30))
    );
    assert!(nats.stream.in_memory);
    let faults = faults(
        &[],
        &[
            ("ROLLCALL_NATS_CREDS", "/run/hunter2.creds"),
            ("ROLLCALL_NATS_CERT", "/etc/node.pem"),
            ("ROLLCALL_NATS_DOMAIN", "a.b"),
            ("ROLLCALL_STREAM", "a b"),
            ("ROLLCALL_STREAM_REPLICAS", "7"),
            ("ROLLCALL_STREAM_MAX_AGE", "1m"),
            ("ROLLCALL_STREAM_STORAGE", "tape"),
        ],
    );
    assert_eq!(faults.len(), 7, "{faults:?}");
    assert!(
        faults[0].contains("ROLLCALL_NATS_CREDS_FILE names a file") && !faults[0].contains("hunter2"),
        "{faults:?}"
    );
    assert!(faults[1].starts_with("ROLLCALL_NATS_KEY: is needed with ROLLCALL_NATS_CERT"), "{faults:?}");
}

#[test]
fn changes_are_told_apart_and_a_backends_file_is_none() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("nats");
    std::fs::write(&path, "nats://a").unwrap();
    let read = |variables: &[(&str, &str)]| {
        let file = ("NATS_URL_FILE", path.to_str().unwrap());
        config(&[variables, &[file][..]].concat()).settings
    };
    let used = read(&[("ROLLCALL_LEASE", "7s"), ("ROLLCALL_EVENT_RATE", "7")]);
    std::fs::write(&path, "nats://b").unwrap();
    let again = read(&[("ROLLCALL_LEASE", "8s"), ("ROLLCALL_ORIGINS", "*"), ("ROLLCALL_EVENT_RATE", "7")]);
    let changes = Changes::between(&used, &again);
    assert_eq!(changes.taken_over, ["ROLLCALL_ORIGINS"]);
    assert_eq!(changes.need_restart, ["ROLLCALL_LEASE"]);
    let admin = [("ROLLCALL_ADMIN_TOKEN", "0123456789abcdef")];
    assert_eq!(Changes::between(&read(&[]), &read(&admin)).need_restart, ["ROLLCALL_ADMIN_TOKEN"]);
}

#[test]
fn a_time_is_one_that_a_clock_can_tell() {
    let is_time = |setting: &&names::Setting| {
        let plain = setting.kind == names::Kind::Plain;
        plain && setting.default.is_some_and(|text| value::duration(text).is_ok())
    };
    // The others have no default.
    let times = names::ALL.iter().filter(is_time).map(|setting| setting.name).chain(["ROLLCALL_HISTORY_RETENTION"]);
    let mut found = 0;
    for name in times {
        let said = faults(&[], &[(name, "101y")]);
        assert!(said.contains(&format!("{name}: \"101y\" is longer than 100 years")), "{name}: {said:?}");
        found += 1;
    }
    assert!(found > 20, "{found}");
    assert_eq!(faults(&[], &[("ROLLCALL_WORKERS", "1025")]), ["ROLLCALL_WORKERS: is at most 1024"]);
}
