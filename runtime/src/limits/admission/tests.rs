//! Who gets in, and who is told to come again.
use std::time::Duration;

use hyper::header::HeaderName;

use super::*;

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

/// So many connections, none of them silent for long.
struct Count(usize);

impl Connections for Count {
    fn count(&self) -> usize {
        self.0
    }

    fn close_silent(&self, _: SocketId) -> bool {
        true
    }
}

fn enter(admission: &Admission, remote: &str) -> Result<ClientPermit, Full> {
    enter_by(admission, remote, None)
}

fn enter_by(admission: &Admission, remote: &str, header: Option<&str>) -> Result<ClientPermit, Full> {
    let remote = format!("{remote}:1").parse().unwrap();
    let mut request = hyper::Request::builder();
    if let Some(header) = header {
        request = request.header("x-forwarded-for", header);
    }
    let (mut head, ()) = request.body(()).unwrap().into_parts();
    if !admission.knock(remote, &mut head.extensions) {
        return Err(Full::Client);
    }
    admission.enter(remote, &mut head, &Count(0))?;
    Ok(head.extensions.remove::<ClientPermit>().unwrap())
}

#[tokio::test]
async fn a_client_has_only_so_many_and_gets_them_back() {
    let admission = admission(100, 2, 1000);
    let first = enter(&admission, "1.2.3.4").unwrap();
    let second = enter(&admission, "1.2.3.4").unwrap();
    assert_eq!(enter(&admission, "1.2.3.4").unwrap_err(), Full::Client);
    assert!(enter(&admission, "1.2.3.5").is_ok(), "another is not concerned");
    drop(first);
    let third = enter(&admission, "1.2.3.4").unwrap();
    assert_eq!(enter(&admission, "1.2.3.4").unwrap_err(), Full::Client);
    drop((second, third));
    assert!(enter(&admission, "1.2.3.4").is_ok());
}

#[tokio::test]
async fn an_ipv6_64_is_one_client_and_loopback_none() {
    let admission = admission(100, 1, 1000);
    let _place = enter(&admission, "[2001:db8::1]").unwrap();
    assert_eq!(enter(&admission, "[2001:db8::2]").unwrap_err(), Full::Client);
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
    assert_eq!(through("6.6.6.6, 1.1.1.1").unwrap_err(), Full::Client);
}

#[tokio::test]
async fn a_full_node_takes_nobody_and_says_when_to_come_back() {
    let admission = admission(3, 9, 1000);
    let enter = |counted| {
        let (mut head, ()) = hyper::Request::new(()).into_parts();
        admission.enter("127.0.0.1:1".parse().unwrap(), &mut head, &Count(counted)).map(|()| head)
    };
    assert_eq!(enter(3).unwrap_err(), Full::Node);
    let underway = enter(2).unwrap();
    assert_eq!(enter(2).unwrap_err(), Full::Node, "the one on its way counts");
    drop(underway);
    assert!(enter(2).is_ok());
    for full in [Full::Node, Full::Memory, Full::Client, Full::Unauthenticated, Full::InFlight, Full::Rate] {
        assert_eq!(full.reply().headers()["retry-after"], "1");
    }
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
async fn clients_that_are_gone_are_forgotten() {
    let admission = admission(100, 100, 1_000_000);
    for number in 0..10_000_u32 {
        let client = IpAddr::from((0x0b00_0000 + number).to_be_bytes());
        drop(admission.place(client, 100));
    }
    assert!(admission.clients.lock().unwrap().places.len() <= TIDY + 1);
}

#[tokio::test]
async fn a_client_above_its_limit_is_told_first_and_not_heard_then() {
    let admission = admission(100, 8, 1000);
    let remote = "1.2.3.4:1".parse().unwrap();
    let _places: Vec<_> = (0..8).map(|_| enter(&admission, "1.2.3.4").unwrap()).collect();
    let mut silent: Vec<_> = (0..3).map(|_| Extensions::new()).collect();
    assert!(silent.iter_mut().all(|holds| admission.knock(remote, holds)), "they may hear why not");
    assert!(!admission.knock(remote, &mut Extensions::new()));
    assert!(enter(&admission, "1.2.3.5").is_ok());
    silent.clear();
    assert!(admission.knock(remote, &mut Extensions::new()));
}

#[tokio::test]
async fn so_many_wait_to_be_let_in() {
    let mut admission = admission(100, 8, 1000);
    admission.limits.unauthenticated = 1;
    let enter = |admission: &Admission| {
        let (mut head, ()) = hyper::Request::new(()).into_parts();
        admission.enter("127.0.0.1:1".parse().unwrap(), &mut head, &Count(0))?;
        Ok::<_, Full>(head.extensions.remove::<Waiting>().unwrap())
    };
    let first = enter(&admission).unwrap();
    assert_eq!(enter(&admission).unwrap_err(), Full::Unauthenticated);
    drop(first);
    assert!(enter(&admission).is_ok());
}

#[tokio::test]
async fn who_was_refused_and_stays_is_in_the_way_of_those_who_knock_only() {
    let admission = admission(100, 4, 1000);
    let remote = "1.2.3.4:1".parse().unwrap();
    let refused = || {
        let (mut head, ()) = hyper::Request::new(()).into_parts();
        assert!(admission.knock(remote, &mut head.extensions));
        assert_eq!(admission.enter(remote, &mut head, &Count(0)).unwrap_err(), Full::Client);
        head.extensions
    };
    let mut places: Vec<_> = (0..4).map(|_| enter(&admission, "1.2.3.4").unwrap()).collect();
    let stubborn = [refused(), refused()];
    assert!(!admission.knock(remote, &mut Extensions::new()), "more of them would use up what is for everybody");
    places.truncate(2);
    places.push(enter(&admission, "1.2.3.4").unwrap());
    drop(stubborn);
    places.push(enter(&admission, "1.2.3.4").unwrap());
    assert_eq!(enter(&admission, "1.2.3.4").unwrap_err(), Full::Client);
}

#[tokio::test(start_paused = true)]
async fn a_silent_connection_makes_way_at_each_limit() {
    let mut admission = admission(4, 2, 1000);
    admission.limits.unauthenticated = 3;
    admission.limits.loopback = true;
    let enter = |from: &str, count: usize| {
        let (mut head, ()) = hyper::Request::new(()).into_parts();
        let remote = format!("{from}:1").parse().unwrap();
        assert!(admission.knock(remote, &mut head.extensions));
        admission.enter(remote, &mut head, &Count(count))?;
        head.extensions.remove::<Underway>();
        let waiting = head.extensions.remove::<Waiting>().unwrap();
        waiting.arrived(SocketId::from_bits(1));
        Ok::<_, Full>((head.extensions.remove::<ClientPermit>(), waiting))
    };
    let _held = (enter("1.2.3.4", 0).unwrap(), enter("1.2.3.4", 1).unwrap());
    assert_eq!(enter("1.2.3.4", 2).unwrap_err(), Full::Client, "they have just come");
    tokio::time::advance(Duration::from_secs(1)).await;
    let own = enter("1.2.3.4", 2).expect("instead of the client's own first");
    drop(own);
    let _other = enter("1.2.3.5", 2).unwrap();
    assert_eq!(enter("1.2.3.6", 5).unwrap_err(), Full::Node, "nothing is spare");
    let _third = enter("1.2.3.6", 4).expect("instead of the last of the first client");
    let _fourth = enter("1.2.3.7", 3).unwrap();
    assert_eq!(enter("1.2.3.8", 3).unwrap_err(), Full::Unauthenticated, "nobody is silent for long");
    tokio::time::advance(Duration::from_secs(1)).await;
    let _fifth = enter("1.2.3.8", 3).unwrap();
}
