//! PROTOCOL 11, a drain: clients of Socket.IO enter another node once their transports are closed.

use crate::common::{Backend, Packet, SOON, Servers, SocketIo};
use rollcall_loadtest::Gateway;
use serde_json::json;

#[tokio::test]
async fn a_client_of_socket_io_enters_elsewhere_after_the_close_and_has_not_left() {
    let first = Backend::start(Some(Servers::shared()), Clone::clone);
    let mut second = Gateway::start(first.beside()).unwrap();
    let room = first.classroom();
    let auth = json!({"token": room.participant("alice"), "classroom_id": room.id});
    let mut client = SocketIo::open_at(second.address(), "", None).await;
    client.connects(&auth).await;
    let session = client.event("connect_success").await["session_id"].clone();
    let mut witness = first.participant(room, "witness").await;
    assert_eq!(client.event("agent.entered").await["id"]["sequence_id"], witness.session);
    first.settled(room, [&mut witness]).await;
    second.terminate().unwrap();
    loop {
        match client.next().await {
            Packet::Closed(code) => break assert_eq!(code, Some(3001)),
            Packet::Event(name, arguments) => assert!(name != "agent.left", "{arguments:?}"),
            other => panic!("{other:?}"),
        }
    }
    let mut again = SocketIo::open_at(first.gateway.address(), "", None).await;
    again.connects(&auth).await;
    assert_eq!(again.event("connect_success").await["session_id"], session);
    assert!(second.wait(2 * SOON).unwrap().success());
    first.nothing_came(room, [&mut witness]).await;
}
