//! Connections that another connection's transport carries.
use rollcall_websocket::{Cause, SocketId};

use crate::{
    client::text,
    engine::{begin, finish, get, is, post, server, session},
    engine_upgrades::probe,
    harness::{Seen, Server},
};

fn carry(server: &Server, carrier: SocketId) -> SocketId {
    server.run(move |sockets| sockets.carry(carrier, (), None).expect("carried"))
}

#[test]
fn what_is_sent_on_it_goes_on_its_carrier_also_over_an_upgrade() {
    let server = server();
    let (sid, id) = session(&server);
    let [first, second] = [carry(&server, id), carry(&server, id)];
    server.run(move |sockets| {
        assert_eq!(sockets.carried(id), [first, second]);
        sockets.get_mut(first).expect("open").send_text(b"one");
        sockets.get_mut(second).expect("open").send_binary(&[7]);
        sockets.get_mut(id).expect("open").send_text(b"own");
        assert!(sockets.queued(first) > 0 && sockets.carry(first, (), None).is_none());
    });
    is(&get(&server, &sid), 200, "4own\u{1e}4one\u{1e}bBw==");
    let mut client = probe(&server, &sid);
    client.send(&text("2probe"));
    assert_eq!(client.frame(), (0x81, b"3probe".to_vec()));
    server.with_socket(first, |socket| socket.send_text(b"before"));
    client.send(&text("5"));
    assert_eq!(client.frame(), (0x81, b"4before".to_vec()));
    server.with_socket(second, |socket| socket.send_text(b"after"));
    assert_eq!(client.frame(), (0x81, b"4after".to_vec()));
    drop(client);
    let mut ends = [server.seen(), server.seen(), server.seen()].map(|seen| match seen {
        Seen::Closed(id, Cause::Lost) => id,
        other => panic!("{other:?}"),
    });
    ends.sort_unstable();
    let mut all = [id, first, second];
    all.sort_unstable();
    assert_eq!(ends, all);
    server.emptied();
}

#[test]
fn it_ends_alone_or_closes_its_carrier() {
    let server = server();
    let (sid, id) = session(&server);
    let [first, second] = [carry(&server, id), carry(&server, id)];
    assert_eq!(server.workers.connections(), 3);
    server.with_socket(first, |socket| {
        socket.send_text(b"last");
        socket.end_carried(Cause::ClosedByClient);
    });
    assert_eq!(server.seen(), Seen::Closed(first, Cause::ClosedByClient));
    is(&get(&server, &sid), 200, "4last");
    assert_eq!(server.run(move |sockets| sockets.carried(id).to_vec()), [second]);
    is(&post(&server, &sid, "4a"), 200, "ok");
    assert_eq!(server.seen(), Seen::Text(id, "a".into()));
    server.with_socket(second, |socket| socket.close(3005, Some(b"over")));
    assert_eq!(server.seen(), Seen::Closed(second, Cause::ClosedByServer));
    assert_eq!(server.seen(), Seen::Closed(id, Cause::ClosedByServer));
    is(&get(&server, &sid), 200, "4over");
    server.emptied();
}

#[test]
fn a_pause_of_it_holds_the_transport() {
    let server = server();
    let (sid, id) = session(&server);
    let [first, second] = [carry(&server, id), carry(&server, id)];
    let pause = |id, on: bool| {
        server.with_socket(id, move |socket| if on { socket.pause() } else { socket.resume() });
    };
    pause(first, true);
    pause(second, true);
    let mut posting = begin(&server, "POST", &format!("&sid={sid}"), "", "4held");
    pause(first, false);
    pause(first, true);
    pause(second, false);
    // A connection that has ended pauses the transport no longer.
    server.with_socket(first, |socket| socket.end_carried(Cause::ClosedByServer));
    is(&finish(&mut posting), 200, "ok");
    let seen = [server.seen(), server.seen()];
    assert!(seen.contains(&Seen::Closed(first, Cause::ClosedByServer)), "{seen:?}");
    assert!(seen.contains(&Seen::Text(id, "held".into())), "{seen:?}");
}
