//! `rollcall serve` starts every part after the parts that it needs, and drains at the end.
use std::{
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use tokio::sync::watch;
use tracing::info;

use super::{
    Backends, StartError,
    bind::bind,
    drain::Drain,
    ending::Ending,
    front::PublicFront,
    gauges,
    keyring::keyring,
    reload::{self, Reload},
    signals::{Signals, hangups},
    welcome,
};
use crate::{
    auth::Hook,
    config::{Config, Reader},
    functions,
    gateway::{Gateway, GatewayContext, Mailboxes, Pids, disconnect_queue::DisconnectQueue},
    handler::{publisher::Publisher, resources::Resources, session::Session, table::Table},
    http::{
        self, FailedTries, Surface,
        admin::Admin,
        board::{Board, Sources},
        health::Health,
        pages::Pages,
        public::Public,
    },
    limits::{EventLimits, admission::Admission},
    log::LogFilter,
    metrics::Metrics,
    mixpanel::Mixpanel,
    node::session_check::SessionCheck,
    rooms::Rooms,
    statistics::Statistics,
    webhook::Webhook,
};
use rollcall_base::{
    process::ProcessIdentity,
    tasks::{TaskEnded, Tasks},
};
use rollcall_bus::EventPublisher;
use rollcall_presence::{
    Presence, Rosters, history_retention::HistoryRetention, key_cleanup::KeyCleanup, key_reconciler::KeyReconciler,
    lease_keeper::LeaseKeeper, operator::Operator, outbox_gauges::OutboxGauges, outbox_relay::OutboxRelay,
    relay_wakes::RelayWakes, sessions::Sessions,
};
use rollcall_store::Registration;
use rollcall_websocket as socket;
use rollcall_websocket::{ListenerOptions, Workers};

/// How long events for Mixpanel may take to be sent when the node drains.
const MIXPANEL_FLUSH: Duration = Duration::from_secs(3);

/// Why the gateway does not start, or stops.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The gateway does not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// A task of the gateway ended while the gateway served.
    #[error(transparent)]
    Task(#[from] TaskEnded),
}

/// Serves until a signal or until one of its tasks ends, then drains.
///
/// # Errors
/// Returns a [`ServeError`] before any request is served, or after a drain because a task ended.
pub async fn serve(config: Config, table: Table, reader: Reader, log: LogFilter) -> Result<(), ServeError> {
    // Before anything that may take long: until then the signal would end the process. It is acted on once the node serves.
    let hangups = hangups()?;
    let tasks = Tasks::default();
    let metrics = Metrics::install().map_err(StartError::at("the metrics", "a bug: please report it"))?;
    gauges::publish(&config);
    let clients = bind(config.listen, "ROLLCALL_LISTEN")?;
    let operators = bind(config.admin_listen, "ROLLCALL_ADMIN_LISTEN")?;
    let probes = config.probe_listen.map(|address| bind(address, "ROLLCALL_PROBE_LISTEN")).transpose()?;
    let egress = super::egress(&config.egress)?;
    let keyring = keyring(&config, &egress).await?;
    let pair = "name PEM files that belong together in ROLLCALL_TLS_CERT and ROLLCALL_TLS_KEY";
    let (listener_sender, listener) = watch::channel(Arc::new(ListenerOptions {
        certificate: reload::certificate(&config).map_err(StartError::at("TLS", pair))?,
        // A developer's page is served from another port of this machine.
        loopback_pages: config.keys.development.is_some(),
        ..config.limits.listener.clone()
    }));
    let Backends { store, kv, bus, feed } = Backends::connect(&config.backends, config.limits.max_forward).await?;
    if let Some(protection) = store.protection() {
        info!(protection, "the database is reached");
    }
    let registration = Registration {
        label: config.node_label.clone().unwrap_or_else(|| format!("{}@{}", std::process::id(), config.listen)),
        lease: config.presence.lease,
        standalone: config.backends.standalone(),
        process: ProcessIdentity::current(),
    };
    let one_process = "one process may use an SQLite file; several nodes need Postgres, Redis and NATS";
    let lease = store.register(&registration).await.map_err(StartError::at("this node", one_process))?;
    let began = *store.incarnation().borrow();
    let installation = store.installation().await.map_err(StartError::at("the database", "start again"))?;
    let (lease, lease_seen) = watch::channel(lease);
    let (nodes, nodes_seen) = watch::channel(1);
    let draining = watch::Sender::new(false);

    let mailboxes = Mailboxes::default();
    let namespaces = config.limits.namespaces.clone();
    let workers = Arc::new(mailboxes.clone());
    let rooms = Rooms::with_namespaces(Arc::clone(&bus), workers, config.limits.max_forward, namespaces);
    let (disconnects, worker) = DisconnectQueue::new(config.limits.grace);
    let (mixpanel, mixpanel_sender) = match config.mixpanel.clone().map(|mixpanel| Mixpanel::new(mixpanel, &egress)) {
        Some((mixpanel, mixpanel_sender)) => (
            mixpanel,
            Some(tasks.spawn(
                "mixpanel",
                mixpanel_sender.run(until(&draining), MIXPANEL_FLUSH.min(config.presence.drain_deadline / 4)),
            )),
        ),
        None => (Mixpanel::disabled(), None),
    };
    let backlogged = watch::Sender::new(false);
    let key_cleanup =
        KeyCleanup::start(&tasks, Arc::clone(&store), Arc::clone(&kv), lease_seen.clone(), Arc::new(mailboxes.clone()));
    let rates = Arc::new(EventLimits::new(&config.access.rates));
    let events = EventPublisher::new(Arc::clone(&bus), config.limits.publish);
    let sessions = Sessions::start(&tasks, &store, &lease_seen, &backlogged.subscribe(), Arc::new(mailboxes.clone()));
    let recent_ends = sessions.recent_ends();
    let hook = Arc::new(Hook::new(config.access.authz.clone(), &egress));
    let rosters = Rosters::start(&tasks, &store);
    let resources = Resources {
        keyring: Arc::clone(&keyring),
        hook: Arc::clone(&hook),
        rooms: rooms.clone(),
        presence: Presence::new(
            sessions,
            Arc::clone(&kv),
            key_cleanup.clone(),
            rosters.clone(),
            config.access.rates.user_sessions,
        ),
        publisher: Publisher::new(events.clone(), config.limits.max_forward),
        mixpanel,
        rates: Arc::clone(&rates),
        guests: config.guests,
    };
    let table = match config.functions.clone() {
        Some(functions) => functions::add_to(table, functions, &egress),
        None => table,
    };
    let table = table.bind(&resources);
    table.set_timeout(config.limits.handler_timeout);
    let pids = match config.limits.recovery {
        Some(window) => {
            let key = store.signing_key().await.map_err(StartError::at("the database", "start again"))?;
            Some(Pids::new(&key, installation, window))
        }
        None => None,
    };
    let admission = Arc::new(Admission::new(config.access.admission.clone()));
    let shared = Arc::new(GatewayContext {
        table: table.clone(),
        disconnects: disconnects.clone(),
        presence: resources.presence.clone(),
        rooms: rooms.clone(),
        mailboxes: mailboxes.clone(),
        pids,
        events: Arc::clone(&rates),
        admission: Arc::clone(&admission),
    });
    // Load balancers route long-polling by this label.
    let label = config.node_label.clone().unwrap_or_else(|| config.listen.to_string());
    let label = label.replace(|c: char| !c.is_ascii_alphanumeric(), "-");
    let gateway = |_| Gateway::new(Arc::clone(&shared), config.limits.gateway.clone());
    let workers = Workers::start(&tasks, config.workers, &config.limits.sockets, &label, gateway)
        .map_err(StartError::at("the workers", "raise the limit of open files"))?;
    mailboxes.open(workers.clone());

    let admin_rooms = rooms.clone();
    // The feed ends with a task of the bus, which reports its own end. So the end of the feed does not end the dispatch
    // task, which would otherwise be named as the failed task.
    tasks.spawn("dispatch", async move {
        rooms.dispatch(feed).await;
        std::future::pending().await
    });
    let context = Arc::clone(&shared);
    let leave_lesson = move |session: &mut Session| context.take_out_of_lesson(session);
    tasks.spawn("disconnects", disconnects.clone().run(worker, table, leave_lesson));
    tasks.spawn(
        "relay",
        OutboxRelay {
            store: Arc::clone(&store),
            bus: Arc::clone(&bus),
            installation,
            lease: lease_seen.clone(),
            backlogged,
        }
        .run(),
    );
    tasks.spawn(
        "wake-ups of relays",
        RelayWakes { store: Arc::clone(&store), bus: Arc::clone(&bus), installation }.run(),
    );
    if let Some(options) = config.webhook.clone() {
        let stream = config.backends.nats.is_some().then(|| Arc::clone(&bus));
        let webhook = Webhook::new(options, Arc::clone(&store), stream, installation, lease_seen.clone(), &egress);
        tasks.spawn("webhook", webhook.run());
    }
    if let Some(keep) = config.history_retention {
        tasks.spawn("history retention", HistoryRetention { store: Arc::clone(&store), keep }.run());
    }
    let (keys, lost) = (Arc::clone(&kv), key_cleanup.clone());
    let reconciler =
        KeyReconciler { store: Arc::clone(&store), kv: keys, key_cleanup: lost, lease: lease_seen.clone() };
    tasks.spawn("key reconciler", reconciler.run());
    let lease_keeper = LeaseKeeper {
        store: Arc::clone(&store),
        key_cleanup: key_cleanup.clone(),
        connections: Arc::new(mailboxes.clone()),
        registration,
        lease,
        nodes,
    };
    tasks.spawn("lease", lease_keeper.run());
    let check = SessionCheck {
        store: Arc::clone(&store),
        mailboxes: mailboxes.clone(),
        disconnects: disconnects.clone(),
        recent_ends,
        lease: lease_seen.clone(),
        spread: config.presence.drain_spread,
    };
    tasks.spawn("session check", check.run(began));
    tasks.spawn("upkeep of metrics", metrics.clone().upkeep());
    let refreshed = Arc::clone(&keyring);
    tasks.spawn("keys of issuers", async move { refreshed.keep_fresh().await });

    let unready = Arc::new(AtomicBool::new(false));
    let over = watch::Sender::new(false);
    let operator = Operator::new(Arc::clone(&store), Arc::clone(&kv), lease_seen.clone(), Arc::new(mailboxes.clone()));
    let keys = Arc::clone(&kv);
    let health = Health::new(Arc::clone(&store), kv, Arc::clone(&bus), Arc::clone(&unready))
        .with_lease(lease_seen.clone(), config.presence.lease);
    // Guests need no keys.
    let health = Arc::new(if config.guests { health } else { health.with_identity(Arc::clone(&keyring)) });
    let statistics = Statistics::new(metrics.clone(), Arc::clone(&unready));
    tasks.spawn("statistics", statistics.clone().run(Arc::clone(&store)));
    let board = Board::default();
    let outbox = OutboxGauges::new(Arc::clone(&store));
    let seen = Sources {
        store: Arc::clone(&store),
        outbox: outbox.clone(),
        health: Arc::clone(&health),
        statistics,
        lease: lease_seen.clone(),
    };
    tasks.spawn("console", board.clone().run(seen));
    let demo = welcome::demo(&config, &clients)?;
    let admin = Arc::new(Admin {
        health,
        store: Arc::clone(&store),
        keys,
        bus: Arc::clone(&bus),
        publisher: events,
        rooms: admin_rooms,
        operator,
        metrics,
        outbox,
        access: config.admin.clone(),
        acts: Arc::default(),
        tries: FailedTries::default(),
        pages: Pages::new(demo.as_ref().map(|demo| demo.origin.as_str())),
        board,
        demo: demo.clone(),
        max_event: config.limits.max_forward,
    });
    // From the time that the addresses are printed, a signal must begin a drain.
    let signals = Signals::install()?;
    let reload = Reload {
        reader,
        settings: config.settings.clone(),
        listener: listener_sender,
        keyring: Arc::clone(&keyring),
        admission: Arc::clone(&admission),
        rates: Arc::clone(&rates),
        presence: resources.presence.clone(),
        handlers: shared.table.clone(),
        workers: workers.clone(),
        mailboxes: mailboxes.clone(),
        log,
    };
    tasks.spawn("reload", reload.run(hangups));
    welcome::print(demo.as_ref(), (&clients, &operators, probes.as_ref()), &*store).await?;
    let public = Public { keyring, hook, rosters, rates, pages: listener.clone() };
    let front = PublicFront { admission, workers: workers.clone(), public };
    tasks.spawn("listener", socket::serve(clients, listener, front, workers.clone(), until(&draining)));
    if let Some(probes) = probes {
        let surface = Surface::Probes(Arc::clone(&admin));
        tasks.spawn("probes' listener", http::serve(surface, probes, over.subscribe()));
    }
    let operators =
        tasks.spawn("operators' listener", http::serve(Surface::Operators(admin), operators, over.subscribe()));

    let drain = Drain {
        presence: config.presence,
        workers,
        mailboxes,
        disconnects,
        undos: resources.presence.undos().clone(),
        key_cleanup,
        store,
        lease: lease_seen,
        nodes: nodes_seen,
    };
    let last = [Some(operators), mixpanel_sender].into_iter().flatten().collect();
    let ending = Ending { signals, tasks, bus, unready, draining, over, drain, last };
    ending.run().await.map_or(Ok(()), |ended| Err(ended.into()))
}

/// Returns a future that is done when the node drains.
fn until(draining: &watch::Sender<bool>) -> impl Future<Output = ()> + Send + 'static {
    let mut draining = draining.subscribe();
    async move {
        // If the sender is gone, the node ends, too.
        let _ = draining.wait_for(|draining| *draining).await;
    }
}
