//! The operators' HTTP with the embedded backends, and with backends that are away.
mod api;
mod console;
mod health;
mod listener;
mod publish;

use std::{
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Request, StatusCode};
use metrics_exporter_prometheus::PrometheusRecorder;
use rollcall_schema::{AgentId, ClassroomId, LessonId, Role, SessionId, Sid};
use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::{mpsc, watch};

use super::{
    access::Access,
    admin::Admin,
    board::{Board, Sources},
    health::Health,
    pages::Pages,
    probes, router,
    tries::FailedTries,
};
use crate::{gateway::Mailboxes, metrics::Metrics, rooms::Rooms, statistics::Statistics};
use rollcall_base::Secret;
use rollcall_bus::{
    Bus, BusEvent, EventPublisher, PublishLimits,
    memory::{LogLimits, MemoryBus},
};
use rollcall_keys::{LessonKeys, memory::MemoryKeys};
use rollcall_presence::{operator::Operator, outbox_gauges::OutboxGauges};
use rollcall_store::{Lease, LessonRow, Lessons, NodeLeases, Open, Registration, Schema, Store, sqlite::SqliteStore};

const ROOM: &str = "2b5c0e0c-8f7c-4b0a-9d54-0a8cf9d1c001";
const OTHER: &str = "2b5c0e0c-8f7c-4b0a-9d54-0a8cf9d1c002";
const LARGEST: usize = 128 * 1024;

/// An operators' address with the embedded backends.
struct Bench {
    admin: Arc<Admin>,
    store: Arc<dyn Store>,
    bus: Arc<dyn Bus>,
    feed: mpsc::Receiver<BusEvent>,
    lease: Lease,
    draining: Arc<AtomicBool>,
    recorder: PrometheusRecorder,
    _folder: TempDir,
}

impl Bench {
    async fn new() -> Self {
        Self::with(None, Arc::new(MemoryKeys::new())).await
    }

    async fn with(token: Option<&str>, kv: Arc<dyn LessonKeys>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(folder.path().join("x.db")).unwrap();
        store.migrate().await.unwrap();
        let registration =
            Registration { label: "test".into(), lease: Duration::from_secs(15), standalone: true, process: None };
        let lease = store.register(&registration).await.unwrap();
        let lesson =
            |id| LessonRow { id: LessonId::parse(id).unwrap(), classroom: ClassroomId::parse(ROOM).unwrap(), seats: 3 };
        let mut load = store.begin_load().await.unwrap();
        load.lessons(["a", "agent"].map(lesson).to_vec()).await.unwrap();
        load.commit().await.unwrap();
        let store: Arc<dyn Store> = Arc::new(store);
        let (bus, feed) = MemoryBus::start(LogLimits::default());
        let bus: Arc<dyn Bus> = Arc::new(bus);
        let draining = Arc::new(AtomicBool::new(false));
        let (metrics, recorder) = Metrics::local();
        let health =
            Arc::new(Health::new(Arc::clone(&store), Arc::clone(&kv), Arc::clone(&bus), Arc::clone(&draining)));
        let board = Board::default();
        let statistics = Statistics::new(metrics.clone(), Arc::clone(&draining));
        let (store_seen, lease_seen) = (Arc::clone(&store), watch::channel(lease).1);
        let outbox = OutboxGauges::new(Arc::clone(&store));
        let sources = Sources {
            store: store_seen,
            outbox: outbox.clone(),
            health: Arc::clone(&health),
            statistics,
            lease: lease_seen,
        };
        tokio::spawn(board.clone().run(sources));
        let admin = Admin {
            store: Arc::clone(&store),
            keys: Arc::clone(&kv),
            bus: Arc::clone(&bus),
            publisher: EventPublisher::new(Arc::clone(&bus), PublishLimits { events: 1000, bytes: 16 << 20 }),
            rooms: Rooms::new(Arc::clone(&bus), Arc::new(Mailboxes::default()), LARGEST),
            operator: Operator::new(
                Arc::clone(&store),
                Arc::clone(&kv),
                watch::channel(lease).1,
                Arc::new(Mailboxes::default()),
            ),
            health: Arc::clone(&health),
            metrics,
            outbox,
            acts: Arc::default(),
            tries: FailedTries::default(),
            pages: Pages::new(None),
            board: board.clone(),
            demo: None,
            access: Access { token: token.map(Secret::new), read_token: None, hosts: Vec::new() },
            max_event: LARGEST,
        };
        Self { admin: Arc::new(admin), store, bus, feed, lease, draining, recorder, _folder: folder }
    }

    /// Lets agents enter the classroom.
    async fn enter(&self, classroom: &str, agents: &[&str]) -> Vec<SessionId> {
        let open = |agent: &&str| {
            let agent = AgentId::parse(agent).unwrap();
            Open {
                classroom: ClassroomId::parse(classroom).unwrap(),
                user: agent.user(),
                agent,
                sid: Sid::random(),
                role: Role::Participant,
                info: None,
                user_sessions: 20,
                resume_id: None,
                trace: None,
            }
        };
        let batch: Vec<_> = agents.iter().map(open).collect();
        let opened = self.store.open(self.lease, &batch).await.unwrap();
        opened.into_iter().map(|opened| opened.unwrap().session).collect()
    }

    async fn ask(&self, request: Request<Full<Bytes>>) -> (StatusCode, Value) {
        let reply = router::answer(&self.admin, request, None).await;
        let status = reply.status();
        let body = reply.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&body).unwrap_or_else(|_| String::from_utf8_lossy(&body).into()))
    }

    async fn get(&self, path: &str) -> (StatusCode, Value) {
        self.ask(Request::get(path).body(Full::default()).unwrap()).await
    }

    async fn post(&self, path: &str, body: impl Into<Bytes>) -> (StatusCode, Value) {
        self.ask(Request::post(path).body(Full::new(body.into())).unwrap()).await
    }
}
