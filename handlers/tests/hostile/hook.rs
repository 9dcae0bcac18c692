//! An authorization service that the test runs itself.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// Decides the status and body of an answer.
type Decision = dyn Fn(&Value) -> Option<(u16, &'static str)> + Send + Sync;

/// A running service. If its decision is `None`, it never answers.
pub(crate) struct Hook {
    address: SocketAddr,
    questions: Arc<Mutex<Vec<Value>>>,
}

impl Hook {
    /// Starts a service that answers with the status that `decide` returns for a request, and no body. If `decide`
    /// returns `None`, the service never answers.
    pub(crate) async fn start(decide: impl Fn(&Value) -> Option<u16> + Send + Sync + 'static) -> Self {
        Self::deciding(move |question| decide(question).map(|status| (status, ""))).await
    }

    /// Starts a service that answers 200 with this body.
    pub(crate) async fn answering(body: &'static str) -> Self {
        Self::deciding(move |_| Some((200, body))).await
    }

    async fn deciding(decide: impl Fn(&Value) -> Option<(u16, &'static str)> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, questions) = (listener.local_addr().unwrap(), Arc::default());
        let (asked, decide): (Arc<Mutex<Vec<Value>>>, Arc<Decision>) = (Arc::clone(&questions), Arc::new(decide));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&asked), Arc::clone(&decide)));
            }
        });
        Self { address, questions }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/authz", self.address)
    }

    /// Returns the questions that came so far.
    pub(crate) fn questions(&self) -> Vec<Value> {
        self.questions.lock().unwrap().clone()
    }
}

async fn serve(stream: TcpStream, asked: Arc<Mutex<Vec<Value>>>, decide: Arc<Decision>) {
    let mut stream = BufReader::new(stream);
    loop {
        let mut length = 0;
        loop {
            let mut line = String::new();
            if stream.read_line(&mut line).await.is_ok_and(|size| size > 0) && line != "\r\n" {
                let value = line.to_ascii_lowercase();
                length = value.strip_prefix("content-length:").map_or(length, |value| value.trim().parse().unwrap());
            } else if line.is_empty() {
                return;
            } else {
                break;
            }
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await.unwrap();
        let question = serde_json::from_slice(&body).unwrap();
        let status = decide(&question);
        asked.lock().unwrap().push(question);
        let Some((status, body)) = status else { return std::future::pending().await };
        let answer = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        if stream.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}
