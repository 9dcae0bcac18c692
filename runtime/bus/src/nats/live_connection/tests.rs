use std::{
    sync::atomic::{AtomicBool, Ordering},
    task::{Context, Wake, Waker},
};

use futures_util::FutureExt;
use rollcall_schema::{LessonId, RoomId};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    sync::oneshot,
};

use super::{
    super::{live_buffer::Next, options::NatsOptions, stream::State},
    *,
};

/// Looks into the buffer at the moment at which a caller gets its answer.
struct Look {
    buffer: Arc<LiveBuffer>,
    answered: AtomicBool,
    found: AtomicBool,
}

impl Wake for Look {
    fn wake(self: Arc<Self>) {
        self.answered.store(true, Ordering::SeqCst);
        self.found.store(matches!(self.buffer.next(), Next::Events(_)), Ordering::SeqCst);
    }
}

/// Accepts a client as a NATS server does.
async fn accepted(listener: TcpListener) -> TcpStream {
    let (mut stream, _) = listener.accept().await.expect("a client");
    stream.write_all(b"INFO {\"server_name\":\"a\"}\r\n").await.expect("written");
    let mut lines = BufReader::new(stream).lines();
    while lines.next_line().await.expect("a line").expect("a line") != "PING" {}
    let mut stream = lines.into_inner().into_inner();
    stream.write_all(b"PONG\r\n").await.expect("written");
    stream
}

/// If the answer came first, the feed could be reset because of it, and then get the event of the stream before.
#[tokio::test]
async fn an_event_is_passed_on_before_the_answer_that_came_after_it() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("nats://{}", listener.local_addr().expect("an address"));
    let server = tokio::spawn(accepted(listener));
    let servers = Servers::new(NatsOptions::new(url)).expect("an address");
    let connection = servers.open_live().await.expect("connected");
    let mut server = server.await.expect("accepted");
    let state = State::through("old", 6);
    let (rooms, buffer, stream_end) = (Arc::default(), Arc::new(LiveBuffer::new()), Arc::new(StreamEnd::new(state)));
    let mut live = LiveConnection::new(connection, servers, Arc::clone(&rooms), buffer.clone(), stream_end.clone());
    let room = RoomId::Lesson(LessonId::parse("algebra-1").expect("a lesson"));
    rooms.add(&room, &stream_end);

    let (waiter, mut answer) = oneshot::channel();
    live.questions.ask(vec![waiter]);
    let look = Arc::new(Look { buffer, answered: AtomicBool::new(false), found: AtomicBool::new(false) });
    let waker = Waker::from(Arc::clone(&look));
    assert!(answer.poll_unpin(&mut Context::from_waker(&waker)).is_pending());
    let (head, body) = ("NATS/1.0\r\nNats-Stream: CLASSROOM\r\nNats-Sequence: 7\r\n\r\n", "{}");
    let event = format!("HMSG live.{room}.note 2 {} {}\r\n{head}{body}\r\n", head.len(), head.len() + body.len());
    let state = r#"{"created":"new","state":{"first_seq":0,"last_seq":0,"bytes":0}}"#;
    let inbox = live.questions.answers().replace('*', "1");
    let both = format!("{event}MSG {inbox} 0 {}\r\n{state}\r\n", state.len());
    server.write_all(both.as_bytes()).await.expect("written");
    while !look.answered.load(Ordering::SeqCst) {
        live.connection.read().await.expect("read");
        live.process_input().expect("valid");
    }
    assert!(look.found.load(Ordering::SeqCst));
}
