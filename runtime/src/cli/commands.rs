//! The commands that need no running gateway, except `serve`.
use std::io::{Write, stderr, stdout};

use rollcall_schema::Audience;

use crate::{
    auth::{TokenSpec, mint},
    cli::{
        CommandError,
        check::{ConnectedBackends, Finding, check},
        columns,
        load::load,
    },
    config::{Config, LoadArgs, SettingInUse, TokenArgs, misspelt},
    node::{self, StartError},
};

/// `rollcall token` prints a token, and nothing else, to stdout.
pub(super) fn token(config: &Config, args: TokenArgs) -> Result<(), CommandError> {
    let failed = "set ROLLCALL_HS256_SECRET; tokens of a JWKS are signed by their issuer";
    let missing = config.keys.development.as_ref().filter(|path| !path.exists());
    let sources = config.keys.load().map_err(StartError::at("the token", failed))?;
    if let Some(made) = missing {
        writeln!(stderr(), "no secret is configured: made one for development, in {}", made.display())?;
    }
    let secret = sources.hs256.ok_or("no secret is configured").map_err(StartError::at("the token", failed))?;
    let audience = args.aud.or_else(|| sources.audiences.first().cloned());
    let spec = TokenSpec {
        issuer: args.iss,
        user: args.sub,
        audience: match audience {
            Some(audience) => audience,
            None => Audience::parse("example.org").map_err(StartError::at("the token", failed))?,
        },
        role: args.role,
        lifetime: args.lifetime,
        lesson_id: args.lesson_id,
        classroom_ids: args.classroom_ids,
        lesson_ids: args.lesson_ids,
        info: args.info,
    };
    Ok(writeln!(stdout(), "{}", mint(&secret, &spec))?)
}

/// `rollcall migrate` creates or updates the tables.
pub(super) async fn migrate(config: &Config) -> Result<(), CommandError> {
    let store = node::store(&config.backends).await?;
    Ok(writeln!(stdout(), "the tables of {} are up to date", store.name())?)
}

/// `rollcall restored` prepares a database that was put back from a backup, before any node starts.
pub(super) async fn restored(config: &Config) -> Result<(), CommandError> {
    let store = node::store(&config.backends).await?;
    let hint = "stop every node, then run it again";
    let done = store.prepare_restored().await.map_err(StartError::at("the restored database", hint))?;
    Ok(writeln!(
        stdout(),
        "it is another installation now: ids are raised, {} sessions of the backup are in the history, {} events are gone",
        done.sessions,
        done.events
    )?)
}

/// `rollcall load` loads lessons and attendees from files.
pub(super) async fn load_files(config: &Config, files: &LoadArgs) -> Result<(), CommandError> {
    let store = node::store(&config.backends).await?;
    let loaded = load(&*store, files).await.map_err(StartError::at("load", "correct the file and load again"))?;
    Ok(writeln!(stdout(), "loaded {} lessons and {} attendees", loaded.lessons, loaded.attendees)?)
}

/// `rollcall check` prints a line for each setting and one for each part. Returns an error if a part is broken.
pub(super) async fn report(config: &Config) -> Result<(), CommandError> {
    let row = |used: &SettingInUse| vec![used.setting.name.to_owned(), used.shown(), used.origin.to_string()];
    let rows: Vec<_> = config.settings.iter().map(row).collect();
    columns::write(&mut stdout(), &["SETTING", "VALUE", "FROM"], &rows)?;
    writeln!(stdout())?;
    let reached = ConnectedBackends {
        store: node::sql(&config.backends).await,
        kv: node::kv(&config.backends).await,
        bus: node::bus(&config.backends, config.limits.max_forward).await.map(|(bus, _)| bus),
    };
    let mut findings = check(config, reached).await;
    findings.extend(misspelt(std::env::vars_os()).into_iter().map(Finding::of_variable));
    for finding in &findings {
        writeln!(stdout(), "{finding}")?;
    }
    match findings.iter().filter(|finding| finding.broken()).count() {
        0 => Ok(()),
        broken => Err(StartError::at("check", "see above")(format!("{broken} broken")).into()),
    }
}
