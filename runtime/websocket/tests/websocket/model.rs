//! Compares a connection with a model. For any frames, split in any way, the connection receives, answers and ends like
//! the model.
//!
//! The model handles whole frames only, and checks each rule by itself. If a frame breaks several rules, any of their
//! codes is right.
use proptest::{prelude::*, test_runner::TestRunner};
use rollcall_websocket::{Cause, SocketOptions, Violation};

use crate::{
    client::{Client, frame},
    harness::{Seen, Server},
};

const MAX_MESSAGE: usize = 64;
const MAX_FRAGMENTS: usize = 4;

/// A frame that the client sends.
#[derive(Clone, Debug)]
struct Sent {
    first: u8,
    payload: Vec<u8>,
    masked: bool,
}

impl Sent {
    fn bytes(&self) -> Vec<u8> {
        let mut bytes = frame(self.first, &self.payload);
        if !self.masked {
            let mask = bytes.len() - self.payload.len() - 4;
            bytes.truncate(mask);
            bytes[1] &= 0x7f;
            bytes.extend_from_slice(&self.payload);
        }
        bytes
    }
}

/// The state after some frames, and what the connection should do.
#[derive(Debug, Default)]
struct Model {
    /// The incomplete message: whether it is text, its data, and the number of its fragments.
    message: Option<(bool, Vec<u8>, usize)>,
    received: Vec<Received>,
    pongs: Vec<u8>,
    end: Option<End>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Received {
    Text(String),
    Binary(Vec<u8>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum End {
    /// The client's close frame, which the server answers with the same code.
    Closed(Option<u16>),
    /// One of these violations. If a frame breaks several rules, any of them may be reported.
    Violated(Vec<Violation>),
}

impl Model {
    fn receive(&mut self, sent: &Sent) {
        let faults = self.faults(sent);
        if !faults.is_empty() {
            self.end = Some(End::Violated(faults));
            return;
        }
        let last = sent.first & 0x80 != 0;
        match sent.first & 0x0f {
            0x8 => {
                let code = sent.payload.first_chunk().map(|code| u16::from_be_bytes(*code));
                self.end = Some(End::Closed(code));
            }
            0x9 => {
                self.pongs.extend([0x8a, u8::try_from(sent.payload.len()).expect("short")]);
                self.pongs.extend(&sent.payload);
            }
            0xa => {}
            opcode => {
                let (text, mut data, fragments) = self.message.take().unwrap_or((opcode == 1, Vec::new(), 0));
                data.extend(&sent.payload);
                if !last {
                    self.message = Some((text, data, fragments + 1));
                } else if text {
                    self.received.push(Received::Text(String::from_utf8(data).expect("checked")));
                } else {
                    self.received.push(Received::Binary(data));
                }
            }
        }
    }

    /// Returns every rule that the frame breaks.
    fn faults(&self, Sent { first, payload, masked }: &Sent) -> Vec<Violation> {
        let (last, opcode) = (first & 0x80 != 0, first & 0x0f);
        let (control, data) = ((8..=10).contains(&opcode), opcode <= 2);
        let incomplete = self.message.as_ref();
        let before = incomplete.map_or(&[][..], |(_, data, _)| data);
        let is_text = opcode == 1 || incomplete.is_some_and(|(text, ..)| *text);
        let text = [before, payload].concat();
        let broken = match std::str::from_utf8(&text) {
            Ok(_) => false,
            Err(error) => last || error.error_len().is_some(),
        };
        let code = payload.first_chunk().map(|code| u16::from_be_bytes(*code));
        let allowed = |code| matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999);
        let reason = payload.get(2..).unwrap_or_default();
        [
            (first & 0x70 != 0, Violation::ReservedBit),
            (!control && !data, Violation::ReservedOpcode),
            (!masked, Violation::Unmasked),
            (control && !last, Violation::FragmentedControl),
            (control && payload.len() > 125, Violation::LongControl),
            (opcode == 0 && incomplete.is_none(), Violation::StrayContinuation),
            ((1..=2).contains(&opcode) && incomplete.is_some(), Violation::NestedMessage),
            (data && incomplete.is_some_and(|(.., fragments)| *fragments == MAX_FRAGMENTS), Violation::Fragments),
            (data && text.len() > MAX_MESSAGE, Violation::TooBig),
            (data && is_text && broken, Violation::Utf8),
            (opcode == 8 && payload.len() == 1, Violation::ShortClose),
            (opcode == 8 && code.is_some_and(|code| !allowed(code)), Violation::CloseCode),
            (opcode == 8 && std::str::from_utf8(reason).is_err(), Violation::Utf8),
        ]
        .into_iter()
        .filter_map(|(broken, violation)| broken.then_some(violation))
        .collect()
    }
}

/// One step of a client.
#[derive(Clone, Debug)]
enum Step {
    /// A fragment: the next one of the incomplete message if there is one, and otherwise the first one of a text or
    /// binary message.
    Data { text: bool, payload: Vec<u8>, last: bool },
    /// Any frame.
    Frame(Sent),
}

fn step() -> impl Strategy<Value = Step> {
    let payload = prop_oneof![
        12 => "[a-zé€𝄞]{0,6}".prop_map(String::into_bytes),
        1 => prop::collection::vec(any::<u8>(), 0..8),
        1 => Just("€".as_bytes()[..2].to_vec()),
        1 => (20_usize..70).prop_map(|size| vec![b'x'; size]),
    ];
    let close = prop_oneof![
        (1000_u16..1016).prop_map(|code| code.to_be_bytes().to_vec()),
        any::<u16>().prop_map(|code| code.to_be_bytes().to_vec()),
        prop::collection::vec(any::<u8>(), 0..4),
    ];
    let control = (0x89_u8..=0x8a, prop::collection::vec(any::<u8>(), 0..20));
    let long = (0x88_u8..=0x8a, 120_usize..130).prop_map(|(first, size)| (first, vec![b'p'; size]));
    let odd =
        prop_oneof![1 => (Just(0x88), close), 1 => long, 2 => (any::<u8>(), "[a-z]{0,8}".prop_map(String::into_bytes))];
    let frame = |masked: f64| {
        move |(first, payload)| {
            prop::bool::weighted(masked)
                .prop_map(move |masked| Step::Frame(Sent { first, payload: Vec::clone(&payload), masked }))
        }
    };
    let data = (prop::bool::weighted(0.8), payload, prop::bool::weighted(0.3));
    prop_oneof![
        20 => data.prop_map(|(text, payload, last)| Step::Data { text, payload, last }),
        6 => control.prop_flat_map(frame(1.0)),
        1 => odd.prop_flat_map(frame(0.8)),
    ]
}

/// Returns the frames of a client that breaks the rules only in `Frame` steps.
fn script() -> impl Strategy<Value = Vec<Sent>> {
    prop::collection::vec(step(), 0..24).prop_map(|steps| {
        let mut incomplete = false;
        let frames = steps.into_iter().map(|step| match step {
            Step::Data { text, payload, last } => {
                let opcode = match (incomplete, text) {
                    (true, _) => 0,
                    (false, true) => 1,
                    (false, false) => 2,
                };
                incomplete = !last;
                Sent { first: opcode | if last { 0x80 } else { 0 }, payload, masked: true }
            }
            Step::Frame(sent) => sent,
        });
        frames.collect()
    })
}

/// Returns what the application receives from this client until `closed`.
fn receive(server: &Server, client: &Client) -> (Vec<Received>, Cause) {
    let mut received = Vec::new();
    loop {
        match server.seen() {
            Seen::Text(id, text) if id == client.id() => received.push(Received::Text(text)),
            Seen::Binary(id, data) if id == client.id() => received.push(Received::Binary(data)),
            Seen::Closed(id, cause) if id == client.id() => return (received, cause),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_connection_behaves_like_its_model() {
    let max_fragments = u32::try_from(MAX_FRAGMENTS).expect("few");
    let options = SocketOptions { binary: true, max_message: MAX_MESSAGE, max_fragments, ..SocketOptions::default() };
    let server = Server::with_options(options);
    let scripts = (script(), prop::collection::vec(any::<prop::sample::Index>(), 0..6));
    let mut runner = TestRunner::new(ProptestConfig { cases: 1_000, ..ProptestConfig::default() });
    let outcome = runner.run(&scripts, |(mut script, cuts)| {
        // This frame ends every script, even in the middle of a message.
        script.push(Sent { first: 0x88, payload: 1000_u16.to_be_bytes().to_vec(), masked: true });
        let mut model = Model::default();
        for sent in &script {
            if model.end.is_none() {
                model.receive(sent);
            }
        }
        let mut client = server.client();
        let bytes: Vec<u8> = script.iter().flat_map(Sent::bytes).collect();
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).chain([bytes.len()]).collect();
        cuts.sort_unstable();
        let mut from = 0;
        for to in cuts {
            client.send(&bytes[std::mem::replace(&mut from, to)..to]);
        }

        let (received, cause) = receive(&server, &client);
        prop_assert_eq!(received, model.received);
        let code = match (model.end.expect("at least our own close frame"), cause) {
            (End::Closed(code), cause) => {
                prop_assert_eq!(cause, Cause::ClosedByClient);
                code
            }
            (End::Violated(any), Cause::Violation(violation)) => {
                prop_assert!(any.contains(&violation), "{:?}, not one of {:?}", violation, any);
                Some(violation.code())
            }
            (End::Violated(any), other) => return Err(TestCaseError::fail(format!("{other:?}, not one of {any:?}"))),
        };
        let close = code.map_or(vec![0x88, 0], |code| [vec![0x88, 2], code.to_be_bytes().to_vec()].concat());
        prop_assert_eq!(client.rest(), [model.pongs, close].concat());
        Ok(())
    });
    outcome.expect("every script");
}
