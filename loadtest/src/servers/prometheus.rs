//! A private Prometheus that scrapes its targets every second.

use std::fs;
use std::io;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use super::binary;
use super::redis::ASK_LIMIT;
use super::server::{Kind, Server};
use crate::wait::poll;

const QUERY_LIMIT: Duration = Duration::from_secs(20);

/// A private Prometheus.
#[derive(Debug)]
pub struct Prometheus {
    server: Server<PrometheusKind>,
}

impl Prometheus {
    /// Starts a Prometheus that scrapes `http://{target}/metrics`.
    ///
    /// # Errors
    /// Returns an error if Prometheus is not installed or does not start.
    pub fn start(target: impl ToString) -> io::Result<Self> {
        Self::of([target])
    }

    /// Starts a Prometheus with several targets.
    ///
    /// # Errors
    /// Returns an error if Prometheus is not installed or does not start.
    pub fn of(targets: impl IntoIterator<Item = impl ToString>) -> io::Result<Self> {
        let server = Server::start_with(targets.into_iter().map(|target| target.to_string()).collect())?;
        Ok(Self { server })
    }

    /// Waits until a PromQL expression has a value, and returns the first one.
    ///
    /// # Errors
    /// Returns an error if the expression has no value within `limit` or is invalid.
    pub fn query(&self, expression: &str, limit: Duration) -> io::Result<f64> {
        poll(limit, expression, || self.value(expression))
    }

    /// Returns the first value of a PromQL expression, or `None` if it has no value now, or the value is not a number.
    ///
    /// # Errors
    /// Returns an error if the expression is faulty.
    pub fn value(&self, expression: &str) -> io::Result<Option<f64>> {
        let answer = ureq::get(format!("{}/api/v1/query", self.server.url()))
            .query("query", expression)
            .config()
            .timeout_global(Some(QUERY_LIMIT))
            .build()
            .call()
            .map_err(io::Error::other)?
            .body_mut()
            .read_to_string()
            .map_err(io::Error::other)?;
        let answer: Value = serde_json::from_str(&answer)?;
        let value = answer.pointer("/data/result/0/value/1");
        Ok(value.and_then(|value| value.as_str()?.parse().ok()).filter(|value: &f64| !value.is_nan()))
    }
}

/// How a Prometheus is started and asked.
#[derive(Debug)]
enum PrometheusKind {}

impl Kind for PrometheusKind {
    type Options = Vec<String>;
    const NAME: &'static str = "prometheus";

    fn command(folder: &Path, port: u16, targets: &Vec<String>) -> io::Result<Command> {
        let configuration = folder.join("prometheus.yml");
        let scrape = serde_json::json!({
            "global": {"scrape_interval": "1s"},
            "scrape_configs": [{"job_name": "rollcall", "static_configs": [{"targets": targets}]}],
        });
        // The configuration is written as JSON, which is also YAML.
        fs::write(&configuration, scrape.to_string())?;
        let mut command = Command::new(binary::find("prometheus", "prometheus")?);
        command
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .arg(format!("--config.file={}", configuration.display()))
            .arg(format!("--storage.tsdb.path={}", folder.join("data").display()));
        Ok(command)
    }

    fn ask(port: u16) -> io::Result<()> {
        ureq::get(format!("{}/-/ready", Self::url(port)))
            .config()
            .timeout_global(Some(ASK_LIMIT))
            .build()
            .call()
            .map(drop)
            .map_err(io::Error::other)
    }

    fn url(port: u16) -> String {
        format!("http://127.0.0.1:{port}")
    }
}
