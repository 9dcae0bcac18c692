//! Asks Sentinel which server is the master.
//!
//! Invariant: all Sentinels are asked at once, and the answer with the latest failover counts. So a Sentinel that was
//! cut off from the others does not lead a node back to the old master.
use std::{collections::HashMap, time::Duration};

use bb8_redis::redis::{RedisConnectionInfo, cmd};
use futures_util::future::join_all;
use tokio::time::timeout;

use super::{
    address::{Endpoint, RedisUrl},
    dial::{ConnectError, Dialer, connect_error},
};

/// How long a Sentinel may take to connect and to answer.
const ANSWER: Duration = Duration::from_millis(300);

/// Returns the server that the Sentinels of this URL name as the master of the service.
pub(super) async fn master(
    dialer: &Dialer,
    url: &RedisUrl,
    (service, access): (&str, &RedisConnectionInfo),
) -> Result<Endpoint, ConnectError> {
    let asked = url.endpoints.iter().map(|sentinel| async move {
        let answer = timeout(ANSWER, ask(dialer, sentinel, (service, access), url.tls)).await;
        let silent = |_| Err(ConnectError(format!("no answer within {ANSWER:?}")));
        answer.unwrap_or_else(silent).map_err(|error| format!("{sentinel}: {error}"))
    });
    let (mut latest, mut why) = (None, Vec::new());
    for answer in join_all(asked).await {
        match answer {
            Ok(answer) => latest = latest.max(Some(answer)),
            Err(error) => why.push(error),
        }
    }
    let found = latest.map(|(_, master)| master);
    found.ok_or_else(|| ConnectError(format!("no Sentinel knows the master: {}", why.join("; "))))
}

/// Returns the failover's number, and the master after it.
async fn ask(
    dialer: &Dialer,
    sentinel: &Endpoint,
    (service, access): (&str, &RedisConnectionInfo),
    tls: bool,
) -> Result<(u64, Endpoint), ConnectError> {
    let mut line = dialer.dial(sentinel, access, tls).await?;
    let question = cmd("SENTINEL").arg("MASTER").arg(service).to_owned();
    let answer: HashMap<String, String> =
        question.query_async(&mut line.connection).await.map_err(|error| match error.detail() {
            Some(said) if said.contains("No such master") => {
                ConnectError(format!("it watches no service named {service}: correct the path of REDIS_URL"))
            }
            Some(said) if said.contains("unknown command") => {
                ConnectError("it is no Sentinel: correct the port in REDIS_URL".into())
            }
            _ => connect_error(&error),
        })?;
    let text = |name: &str| answer.get(name).map(String::as_str).unwrap_or_default();
    let endpoint = text("port").parse().ok().and_then(|port| Endpoint::of(text("ip"), port, sentinel));
    let endpoint = endpoint.ok_or_else(|| ConnectError("it names no master".into()))?;
    Ok((text("config-epoch").parse().unwrap_or(0), endpoint))
}
