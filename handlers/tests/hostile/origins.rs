//! Which pages may open a WebSocket.

use rollcall_loadtest::Client;

use crate::common::Backend;
use crate::raw::ask;

#[tokio::test]
async fn a_foreign_page_is_refused_and_leaves_no_trace() {
    let backend = Backend::embedded();
    let room = backend.classroom();
    let address = backend.gateway.address();
    let other_port = format!("http://{}:1", address.ip());
    for origin in ["https://evil.example", "null", "", "file://", &other_port, "http://127.0.0.1.evil.example"] {
        let (_stream, answer) = ask(address, &[("Origin", origin)]).await;
        assert_eq!(answer.status, 403, "{origin:?}");
    }
    let (_stream, answer) = ask(address, &[("Origin", &format!("http://{address}")), ("Origin", "null")]).await;
    assert_eq!(answer.status, 403, "two of them");
    assert_eq!(backend.live(room).await, [""; 0]);
    assert!(backend.gateway.metric("rollcall_upgrades_total", &["outcome=\"origin\""]).unwrap() >= 7.0);
}

#[tokio::test]
async fn the_same_host_and_clients_that_are_no_browsers_come_in() {
    let address = Backend::embedded().gateway.address();
    for headers in [&[("Origin", format!("http://{address}"))][..], &[]] {
        let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        assert_eq!(ask(address, &headers).await.1.status, 101, "{headers:?}");
    }
}

#[tokio::test]
async fn a_listed_page_comes_in_and_enters() {
    let backend = Backend::embedded()
        .another(|options| options.clone().env("ROLLCALL_ORIGINS", "https://school.example, http://localhost:3000"));
    let (room, address) = (backend.classroom(), backend.gateway.address());
    let mut client = Client::connect_with(address, "/ws", &[("origin", "https://school.example")]).await.unwrap();
    client.connect_request(&room.participant("alice"), &room.id, "web").await.unwrap();
    assert_eq!(ask(address, &[("Origin", "http://localhost:3000")]).await.1.status, 101);
    for origin in ["http://school.example", "https://school.example:444", "https://a.school.example", "null"] {
        assert_eq!(ask(address, &[("Origin", origin)]).await.1.status, 403, "{origin}");
    }
    let any = Backend::embedded().another(|options| options.clone().env("ROLLCALL_ORIGINS", "*"));
    assert_eq!(ask(any.gateway.address(), &[("Origin", "null")]).await.1.status, 101);
}
