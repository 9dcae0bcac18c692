//! The commands that need no running gateway, except `serve`.
use rollcall_schema::Audience;

use crate::{
    auth::{TokenSpec, mint},
    cli::{
        check::{ConnectedBackends, check},
        columns,
        load::load,
    },
    config::{Config, LoadArgs, SettingInUse, TokenArgs},
    node::{self, StartError},
};

/// Returns a table of every setting, with its value and where the value comes from.
fn settings(config: &Config) -> String {
    let row = |used: &SettingInUse| vec![used.setting.name.to_owned(), used.shown(), used.origin.to_string()];
    let rows: Vec<_> = config.settings.iter().map(row).collect();
    let mut table = Vec::new();
    // A write to memory cannot fail.
    let _ = columns::write(&mut table, &["SETTING", "VALUE", "FROM"], &rows);
    String::from_utf8_lossy(&table).into_owned()
}

/// `rollcall token` prints a token, and nothing else, to stdout.
pub(super) fn token(config: &Config, args: TokenArgs) -> Result<(), StartError> {
    let failed = "set ROLLCALL_HS256_SECRET; tokens of a JWKS are signed by their issuer";
    let missing = config.keys.development.as_ref().filter(|path| !path.exists());
    let sources = config.keys.load().map_err(StartError::at("the token", failed))?;
    if let Some(made) = missing {
        eprintln!("no secret is configured: made one for development, in {}", made.display());
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
    println!("{}", mint(&secret, &spec));
    Ok(())
}

/// `rollcall migrate` creates or updates the tables.
pub(super) async fn migrate(config: &Config) -> Result<(), StartError> {
    let store = node::store(&config.backends).await?;
    println!("the tables of {} are up to date", store.name());
    Ok(())
}

/// `rollcall restored` tells the gateways that the database was restored.
pub(super) async fn restored(config: &Config) -> Result<(), StartError> {
    let store = node::store(&config.backends).await?;
    let hint = "stop every node, then run it again";
    let done = store.prepare_restored().await.map_err(StartError::at("the restored database", hint))?;
    println!(
        "it is another installation now: ids are raised, {} sessions of the backup are in the history, {} events are gone",
        done.sessions, done.events
    );
    Ok(())
}

/// `rollcall load` loads lessons and attendees from files.
pub(super) async fn load_files(config: &Config, files: &LoadArgs) -> Result<(), StartError> {
    let store = node::store(&config.backends).await?;
    let loaded = load(&*store, files).await.map_err(StartError::at("load", "correct the file and load again"))?;
    println!("loaded {} lessons and {} attendees", loaded.lessons, loaded.attendees);
    Ok(())
}

/// `rollcall check` prints a line for each setting and one for each part. Returns an error if a part is broken.
pub(super) async fn report(config: &Config) -> Result<(), StartError> {
    println!("{}", settings(config));
    let reached = ConnectedBackends {
        store: node::sql(&config.backends).await,
        kv: node::kv(&config.backends).await,
        bus: node::bus(&config.backends, config.limits.max_forward).await.map(|(bus, _)| bus),
    };
    let findings = check(config, reached).await;
    for finding in &findings {
        println!("{finding}");
    }
    let broken = findings.iter().filter(|finding| finding.broken()).count();
    if broken == 0 { Ok(()) } else { Err(format!("{broken} broken")).map_err(StartError::at("check", "see above")) }
}
