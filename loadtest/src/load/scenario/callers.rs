//! Agents that send events of an app, each as soon as the previous event is answered, or at a given rate.

use std::io;
use std::time::Duration;

use futures_util::future::try_join_all;
use rollcall_loadtest::{Client, token};
use serde_json::json;
use tokio::runtime::{Builder, Runtime};
use tokio::time::{Instant, sleep_until};

use crate::load::clock::now;
use crate::load::order::Crowd;
use crate::load::system::System;

/// How long the agents call, in seconds.
pub(super) const SECONDS: f64 = 5.0;
/// The number of rooms over which callers and listeners are spread.
pub(super) const ROOMS: usize = 20;
/// Settings with which no client is limited.
pub(super) const NO_RATE_LIMIT: [(&str, &str); 2] =
    [("ROLLCALL_EVENT_RATE", "1000000"), ("ROLLCALL_USER_EVENT_RATE", "1000000")];
const CALLERS_A_ROOM: usize = 3;

/// The agents that call. Each lesson of a crowd has the same number of them.
pub(super) struct Callers {
    runtime: Runtime,
    clients: Vec<Client>,
}

impl Callers {
    pub(super) fn enter(system: &System, crowd: &Crowd) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let entering = (0..ROOMS * CALLERS_A_ROOM).map(async |number| {
            let room = number % ROOMS;
            let mut client = Client::connect(system.address()).await?;
            let token = token::participant(&format!("caller-{number}"));
            client.connect_request(&token, &crowd.classroom(room), "web").await?;
            client.join_lesson(&crowd.lesson(room)).await?;
            Ok(client)
        });
        let clients = runtime.block_on(try_join_all(entering)).map_err(failed)?;
        Ok(Self { runtime, clients })
    }

    /// Lets each agent call again as soon as it has its answer, for some seconds. Returns how many calls succeeded.
    pub(super) fn as_fast_as_they_go(&mut self, event: &str) -> io::Result<usize> {
        let until = Instant::now() + Duration::from_secs_f64(SECONDS);
        let calling = self.clients.iter_mut().map(async |client| {
            let mut calls = 0;
            while Instant::now() < until {
                call(client, event).await?;
                calls += 1;
            }
            Ok(calls)
        });
        Ok(self.runtime.block_on(try_join_all(calling)).map_err(failed)?.into_iter().sum())
    }

    /// Lets all agents together call at this rate per second, each as often as the others. Returns how many calls
    /// succeeded.
    pub(super) fn paced(&mut self, event: &str, rate: f64) -> io::Result<usize> {
        let (began, count) = (Instant::now(), self.clients.len());
        let each = (rate * SECONDS / count as f64) as usize;
        let calling = self.clients.iter_mut().enumerate().map(async |(number, client)| {
            for round in 0..each {
                let due = (round * count + number) as f64 / rate;
                sleep_until(began + Duration::from_secs_f64(due)).await;
                call(client, event).await?;
            }
            Ok(())
        });
        self.runtime.block_on(try_join_all(calling)).map_err(failed)?;
        Ok(each * count)
    }
}

/// Makes one call. `hand` is for the handler of README's example, which publishes nothing else.
async fn call(client: &mut Client, event: &str) -> Result<(), Box<dyn std::error::Error>> {
    let payload = json!({"hand": now().to_string(), "text": "x".repeat(70)});
    let ack = client.request(event, payload).await?;
    if ack["status"] == "SUCCESS" { Ok(()) } else { Err(ack.to_string().into()) }
}

fn failed(error: Box<dyn std::error::Error>) -> io::Error {
    io::Error::other(error.to_string())
}
