//! Which connections are admitted, and why others are refused.
use std::time::Duration;

use hyper::header::HeaderName;

use super::*;
use rollcall_websocket::ConnectionCount;

fn admission(connections: usize, per_client: usize, upgrades: u32) -> Admission {
    let header = HeaderName::from_static("x-forwarded-for");
    let proxies = Proxies { trusted: vec!["10.0.0.0/8".parse().unwrap()], header };
    Admission::new(AdmissionLimits {
        connections,
        spare: 1,
        per_client,
        loopback: false,
        unauthenticated: 1_000_000,
        upgrades,
        memory: u64::MAX,
        proxies,
    })
}

/// A number of connections, each of which can be closed, and the reserved connections.
struct Count(usize, ConnectionCount);

impl Count {
    fn of(connections: usize) -> Self {
        Self(connections, ConnectionCount::default())
    }
}

impl Connections for Count {
    fn count(&self) -> usize {
        self.0 + self.1.get()
    }

    fn reserve(&self) -> ReservedConnection {
        self.1.reserve()
    }

    fn close_silent(&self, _: SocketId) -> bool {
        true
    }

    fn near_limit(&self) -> bool {
        false
    }
}

fn enter(admission: &Admission, remote: &str) -> Result<ClientPermit, AdmissionError> {
    enter_by(admission, remote, None)
}

fn enter_by(admission: &Admission, remote: &str, header: Option<&str>) -> Result<ClientPermit, AdmissionError> {
    let remote = format!("{remote}:1").parse().unwrap();
    let mut request = hyper::Request::builder();
    if let Some(header) = header {
        request = request.header("x-forwarded-for", header);
    }
    let (mut head, ()) = request.body(()).unwrap().into_parts();
    if !admission.admit_connection(remote, &mut head.extensions) {
        return Err(AdmissionError::Client);
    }
    admission.admit_upgrade(remote, &mut head, &Count::of(0))?;
    Ok(head.extensions.remove::<ClientPermit>().unwrap())
}

#[tokio::test]
async fn a_client_has_only_so_many_and_gets_them_back() {
    let admission = admission(100, 2, 1000);
    let first = enter(&admission, "1.2.3.4").unwrap();
    let second = enter(&admission, "1.2.3.4").unwrap();
    assert_eq!(enter(&admission, "1.2.3.4").unwrap_err(), AdmissionError::Client);
    assert!(enter(&admission, "1.2.3.5").is_ok(), "another is not concerned");
    drop(first);
    let third = enter(&admission, "1.2.3.4").unwrap();
    assert_eq!(enter(&admission, "1.2.3.4").unwrap_err(), AdmissionError::Client);
    drop((second, third));
    assert!(enter(&admission, "1.2.3.4").is_ok());
}

#[tokio::test]
async fn an_ipv6_64_is_one_client_and_loopback_none() {
    let admission = admission(100, 1, 1000);
    let _place = enter(&admission, "[2001:db8::1]").unwrap();
    assert_eq!(enter(&admission, "[2001:db8::2]").unwrap_err(), AdmissionError::Client);
    assert!(enter(&admission, "[2001:db8:0:1::2]").is_ok());
    for _ in 0..5 {
        assert!(enter(&admission, "127.0.0.1").unwrap().is_none());
    }
}

#[tokio::test]
async fn behind_a_proxy_the_client_is_counted() {
    let admission = admission(100, 1, 1000);
    let through = |client: &'static str| enter_by(&admission, "10.0.0.1", Some(client));
    let _places = (through("1.1.1.1").unwrap(), through("2.2.2.2").unwrap());
    assert_eq!(through("6.6.6.6, 1.1.1.1").unwrap_err(), AdmissionError::Client);
}

#[tokio::test]
async fn a_full_node_admits_nobody() {
    let admission = admission(3, 9, 1000);
    let reserved = ConnectionCount::default();
    let enter = |counted| {
        let (mut head, ()) = hyper::Request::new(()).into_parts();
        let connections = Count(counted, reserved.clone());
        admission.admit_upgrade("127.0.0.1:1".parse().unwrap(), &mut head, &connections).map(|()| head)
    };
    assert_eq!(enter(3).unwrap_err(), AdmissionError::Node);
    let in_progress = enter(2).unwrap();
    assert_eq!(enter(2).unwrap_err(), AdmissionError::Node, "the one on its way counts");
    drop(in_progress);
    assert!(enter(2).is_ok());
}

#[tokio::test(start_paused = true)]
async fn upgrades_have_a_rate() {
    let admission = admission(100, 100, 10);
    let entered = || (0..100).take_while(|_| enter(&admission, "127.0.0.1").is_ok()).count();
    assert_eq!(entered(), 10);
    tokio::time::advance(Duration::from_millis(500)).await;
    assert_eq!(entered(), 5);
    tokio::time::advance(Duration::from_secs(60)).await;
    assert_eq!(entered(), 10, "no more than a second's worth is saved up");
}

#[tokio::test]
async fn a_client_above_its_limit_is_answered_first_and_then_not_accepted() {
    let admission = admission(100, 8, 1000);
    let remote = "1.2.3.4:1".parse().unwrap();
    let _places: Vec<_> = (0..8).map(|_| enter(&admission, "1.2.3.4").unwrap()).collect();
    let mut silent: Vec<_> = (0..3).map(|_| Extensions::new()).collect();
    assert!(
        silent.iter_mut().all(|holds| admission.admit_connection(remote, holds)),
        "they get an answer that says why"
    );
    assert!(!admission.admit_connection(remote, &mut Extensions::new()));
    assert!(enter(&admission, "1.2.3.5").is_ok());
    silent.clear();
    assert!(admission.admit_connection(remote, &mut Extensions::new()));
}

#[tokio::test]
async fn connections_without_a_session_are_limited() {
    let admission = admission(100, 8, 1000);
    admission.set_limits(AdmissionLimits { unauthenticated: 1, ..(*admission.limits()).clone() });
    let enter = |admission: &Admission| {
        let (mut head, ()) = hyper::Request::new(()).into_parts();
        admission.admit_upgrade("127.0.0.1:1".parse().unwrap(), &mut head, &Count::of(0))?;
        Ok::<_, AdmissionError>(head.extensions.remove::<UnauthenticatedPermit>().unwrap())
    };
    let first = enter(&admission).unwrap();
    assert_eq!(enter(&admission).unwrap_err(), AdmissionError::Unauthenticated);
    drop(first);
    assert!(enter(&admission).is_ok());
}

#[tokio::test]
async fn refused_connections_that_stay_count_only_when_connections_are_accepted() {
    let admission = admission(100, 4, 1000);
    let remote = "1.2.3.4:1".parse().unwrap();
    let refused = || {
        let (mut head, ()) = hyper::Request::new(()).into_parts();
        assert!(admission.admit_connection(remote, &mut head.extensions));
        assert_eq!(admission.admit_upgrade(remote, &mut head, &Count::of(0)).unwrap_err(), AdmissionError::Client);
        head.extensions
    };
    let mut places: Vec<_> = (0..4).map(|_| enter(&admission, "1.2.3.4").unwrap()).collect();
    let stubborn = [refused(), refused()];
    assert!(!admission.admit_connection(remote, &mut Extensions::new()), "more of them would use up what others need");
    places.truncate(2);
    places.push(enter(&admission, "1.2.3.4").unwrap());
    drop(stubborn);
    places.push(enter(&admission, "1.2.3.4").unwrap());
    assert_eq!(enter(&admission, "1.2.3.4").unwrap_err(), AdmissionError::Client);
}

#[tokio::test(start_paused = true)]
async fn a_silent_connection_is_closed_at_each_limit() {
    let admission = admission(4, 2, 1000);
    admission.set_limits(AdmissionLimits { unauthenticated: 3, loopback: true, ..(*admission.limits()).clone() });
    let enter = |from: &str, count: usize| {
        let (mut head, ()) = hyper::Request::new(()).into_parts();
        let remote = format!("{from}:1").parse().unwrap();
        assert!(admission.admit_connection(remote, &mut head.extensions));
        admission.admit_upgrade(remote, &mut head, &Count::of(count))?;
        let waiting = head.extensions.remove::<UnauthenticatedPermit>().unwrap();
        waiting.arrived(SocketId::from_bits(1));
        Ok::<_, AdmissionError>((head.extensions.remove::<ClientPermit>(), waiting))
    };
    let _held = (enter("1.2.3.4", 0).unwrap(), enter("1.2.3.4", 1).unwrap());
    assert_eq!(enter("1.2.3.4", 2).unwrap_err(), AdmissionError::Client, "they have just come");
    tokio::time::advance(Duration::from_secs(1)).await;
    let own = enter("1.2.3.4", 2).expect("instead of the client's own first");
    drop(own);
    let _other = enter("1.2.3.5", 2).unwrap();
    assert_eq!(enter("1.2.3.6", 5).unwrap_err(), AdmissionError::Node, "nothing is spare");
    let _third = enter("1.2.3.6", 4).expect("instead of the last of the first client");
    let _fourth = enter("1.2.3.7", 3).unwrap();
    assert_eq!(enter("1.2.3.8", 3).unwrap_err(), AdmissionError::Unauthenticated, "nobody is silent for long");
    tokio::time::advance(Duration::from_secs(1)).await;
    let _fifth = enter("1.2.3.8", 3).unwrap();
}
