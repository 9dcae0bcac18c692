//! A cluster: any member may die or hang, members that the URL does not name are used, and a subscription is live in
//! the whole cluster.
use async_nats::{
    ServerAddr,
    jetstream::{
        self,
        stream::{ClusterInfo, Config, Placement, StorageType},
    },
};
use rollcall_bus::{
    Bus, BusEvent,
    nats::{NatsBus, NatsOptions, StreamOptions},
};
use rollcall_loadtest::servers::{MemberOptions, NatsCluster, NatsMember, NatsVersion};
use rollcall_schema::RoomId;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{mpsc, watch},
    time::{Duration, Instant, sleep},
};

use crate::{
    bench::{PAUSE, classroom, collect, ids, in_time, publish_surely},
    outages::nothing_is_lost,
    stream_settings::foreign,
};

const LIMIT: Duration = Duration::from_secs(60);

fn replicated(url: String) -> NatsOptions {
    let stream = StreamOptions { replicas: 3, ..StreamOptions::default() };
    NatsOptions { stream, ..NatsOptions::new(url) }
}

/// Returns the stream's leader as it reports its cluster, asked on any of these servers.
async fn cluster_info(urls: &str) -> Option<ClusterInfo> {
    let servers: Vec<ServerAddr> = urls.split(',').map(|url| url.parse().unwrap()).collect();
    let client = async_nats::connect(servers).await.ok()?;
    let stream = jetstream::new(client).get_stream("CLASSROOM").await.ok()?;
    stream.cached_info().cluster.clone()
}

/// Waits until all members have the whole stream. Returns the number of the leader.
async fn settled(cluster: &NatsCluster) -> usize {
    let until = Instant::now() + LIMIT;
    loop {
        let info = cluster_info(&cluster.url()).await;
        if let Some(ClusterInfo { leader: Some(leader), replicas, .. }) = &info
            && replicas.len() == 2
            && replicas.iter().all(|peer| peer.current && !peer.offline)
        {
            return leader[1..].parse().unwrap();
        }
        assert!(Instant::now() < until, "the members catch up: {info:?}");
        sleep(PAUSE).await;
    }
}

/// Waits until the node has received `events` more events.
async fn goes_on(bus: &NatsBus, events: u64) {
    let (until, from) = (Instant::now() + LIMIT, bus.position().offset.0);
    while bus.position().offset.0 < from + events {
        assert!(Instant::now() < until, "the cluster heals");
        sleep(PAUSE).await;
    }
}

async fn any_member_may_fail(version: NatsVersion) {
    let mut cluster = NatsCluster::start(version, 3).unwrap();
    let options = replicated(cluster.url());
    let until = Instant::now() + LIMIT;
    while let Err(error) = NatsBus::connect_with(options.clone()).await {
        assert!(Instant::now() < until, "{error}");
    }
    // The node's connections use the first server in the URL. The stream's leader is another server or the same.
    for hangs in [false, true] {
        for of_leader in [false, true] {
            let leading = settled(&cluster).await;
            let failing = if of_leader { leading } else { usize::from(leading == 0) };
            let silent = nothing_is_lost(options.clone(), async |bus| {
                let member = &mut cluster.members[failing];
                if hangs {
                    member.pause().unwrap()
                } else {
                    member.kill().unwrap()
                }
                goes_on(bus, 100).await;
                if hangs { member.resume().unwrap() } else { member.restart().unwrap() }
            })
            .await;
            println!(
                "{version:?}, n{failing} (the stream's leader: {of_leader}), hangs: {hangs}: silent for {silent:?}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_member_may_die_or_hang() {
    any_member_may_fail(NatsVersion::Distribution).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_member_of_a_current_version_may_die_or_hang() {
    any_member_may_fail(NatsVersion::Current).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_was_not_named_is_used_by_every_connection() {
    let mut cluster = NatsCluster::start(NatsVersion::Current, 3).unwrap();
    let options = replicated(cluster.members[0].url());
    let until = Instant::now() + LIMIT;
    let (bus, mut feed) = loop {
        match NatsBus::connect_with(options.clone()).await {
            Ok(connected) => break connected,
            Err(error) => assert!(Instant::now() < until, "{error}"),
        }
    };
    let (room, start) = (classroom(), bus.position());
    bus.subscribe(&room).await.unwrap();
    publish_surely(&bus, &room, 1).await;
    cluster.members[0].kill().unwrap();
    publish_surely(&bus, &room, 2).await;
    assert_eq!(ids(&collect(&mut feed, 2).await), [1, 2]);
    let until = Instant::now() + LIMIT;
    let missed = loop {
        match in_time(bus.replay(std::slice::from_ref(&room), &start)).await {
            Ok(rollcall_bus::Replay::Events(mut events, _)) => {
                let mut missed = Vec::new();
                while let Some(Ok(event)) = events.recv().await {
                    missed.push(event);
                }
                if missed.len() == 2 {
                    break missed;
                }
            }
            other => assert!(Instant::now() < until, "{other:?}"),
        }
    };
    assert_eq!(ids(&missed), [1, 2]);
    bus.probe().await.unwrap();
}

/// What happens on the connection between two servers to the messages that announce subscriptions.
#[derive(Clone, Copy, PartialEq)]
enum Routes {
    Pass,
    Wait,
    /// All connections end, and waiting messages are lost.
    Break,
}

/// Relays a server's connections to another server.
async fn routes_to(server: u16, routes: &watch::Receiver<Routes>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let routes = routes.clone();
    tokio::spawn(async move {
        while let Ok((near, _)) = listener.accept().await {
            let Ok(far) = TcpStream::connect(("127.0.0.1", server)).await else { continue };
            let ((near_read, near_write), (far_read, far_write)) = (near.into_split(), far.into_split());
            tokio::spawn(pass(near_read, far_write, routes.clone()));
            tokio::spawn(pass(far_read, near_write, routes.clone()));
        }
    });
    port
}

async fn pass(mut read: OwnedReadHalf, mut write: OwnedWriteHalf, mut routes: watch::Receiver<Routes>) {
    let (mut piece, mut broken) = (vec![0; 64 * 1024], routes.clone());
    let passing = async {
        while let Ok(length @ 1..) = read.read(&mut piece).await {
            let tells = piece[..length].windows(10).any(|text| text == b"live.class");
            let may_pass = !tells || routes.wait_for(|now| *now != Routes::Wait).await.is_ok();
            if !may_pass || write.write_all(&piece[..length]).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        biased;
        _ = broken.wait_for(|now| *now == Routes::Break) => {}
        () = passing => {}
    }
}

/// Two servers that reach each other through [`routes_to`], and a node at each. The stream is only on the far server.
struct Pair {
    routes: watch::Sender<Routes>,
    _here: NatsMember,
    far: NatsMember,
    bus: NatsBus,
    feed: mpsc::Receiver<BusEvent>,
    publisher: NatsBus,
    _unread: mpsc::Receiver<BusEvent>,
}

impl Pair {
    async fn start() -> Self {
        let port = || std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let (routes, passed) = watch::channel(Routes::Pass);
        let (here_port, far_port) = (port(), port());
        let member = async |name: &str, own: u16, other: u16| {
            let route = routes_to(other, &passed).await;
            let settings = format!(
                "server_name: {name}\nserver_tags: [{name}]\njetstream {{ store_dir: store }}\n\
                 cluster {{ name: test, listen: \"127.0.0.1:{own}\", routes: [\"nats-route://127.0.0.1:{route}\"] }}\n"
            );
            NatsMember::start_with(MemberOptions::new(NatsVersion::Current, settings).unwrap()).unwrap()
        };
        let (here, far) = (member("here", here_port, far_port).await, member("far", far_port, here_port).await);
        let placement = Some(Placement { cluster: None, tags: vec!["far".to_owned()] });
        let config = Config { placement, storage: StorageType::File, ..foreign() };
        let until = Instant::now() + LIMIT;
        let context = jetstream::new(async_nats::connect(far.url()).await.unwrap());
        while let Err(error) = context.create_stream(config.clone()).await {
            assert!(Instant::now() < until, "{error}");
            sleep(PAUSE).await;
        }
        let connect = async |member: &NatsMember| loop {
            match NatsBus::connect(&member.url()).await {
                Ok(connected) => return connected,
                Err(error) => assert!(Instant::now() < until, "{error}"),
            }
        };
        let ((bus, feed), (publisher, unread)) = (connect(&here).await, connect(&far).await);
        Self { routes, _here: here, far, bus, feed, publisher, _unread: unread }
    }

    /// Subscribes to a new room. Returns when its subscription is live.
    async fn room(&self) -> RoomId {
        let (room, until) = (classroom(), Instant::now() + LIMIT);
        while let Err(error) = in_time(self.bus.subscribe(&room)).await {
            assert!(Instant::now() < until, "{error}");
        }
        room
    }

    async fn hears(&mut self, room: &RoomId, number: i64) {
        publish_surely(&self.publisher, room, number).await;
        assert_eq!(ids(&collect(&mut self.feed, 1).await), [number]);
    }
}

/// Servers of 2.10 and later announce subscriptions to each other on another connection than the one for JetStream's
/// requests.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_between_a_subscription_and_its_first_event_where_routes_are_pooled() {
    let mut pair = Pair::start().await;
    for round in 0..3 {
        let room = classroom();
        pair.routes.send(Routes::Wait).unwrap();
        let subscribed = in_time(pair.bus.subscribe(&room)).await;
        publish_surely(&pair.publisher, &room, round).await;
        pair.routes.send(Routes::Pass).unwrap();
        assert!(subscribed.is_err(), "the stream's server does not know of it yet");
        assert_eq!(ids(&collect(&mut pair.feed, 1).await), [round]);
        pair.bus.unsubscribe(&room);
    }
    // If no message is held, the subscription is live at once.
    let room = pair.room().await;
    pair.hears(&room, 3).await;
}

/// The event is stored, and its copy never reaches the node's server: the other server was restarted, or the two were
/// cut off from each other, for so short a time that no question failed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_that_got_lost_between_servers_is_read_from_the_stream() {
    let mut pair = Pair::start().await;
    let room = pair.room().await;
    for (dies, number) in [(false, 0), (true, 2)] {
        pair.routes.send(Routes::Wait).unwrap();
        publish_surely(&pair.publisher, &room, number).await;
        if dies {
            pair.far.kill().unwrap();
        }
        pair.routes.send(Routes::Break).unwrap();
        // The two remaining receivers are those of the listeners.
        while pair.routes.receiver_count() > 2 {
            sleep(PAUSE).await;
        }
        if dies {
            pair.far.restart().unwrap();
        }
        pair.routes.send(Routes::Pass).unwrap();
        assert_eq!(ids(&collect(&mut pair.feed, 1).await), [number]);
        pair.hears(&room, number + 1).await;
    }
}
