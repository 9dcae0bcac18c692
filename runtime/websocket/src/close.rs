//! Why a connection ends, and what the client is sent last.
use bytes::Bytes;

/// Why a connection is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The client sent a close frame.
    ClosedByClient,
    /// The socket broke, or ended without a close frame.
    Lost,
    /// No frame came within the pong timeout.
    PongTimedOut,
    /// The client broke RFC 6455 or a limit; it has been sent the violation's close code.
    Violation(Violation),
    /// The client does not read what is sent to it. Its own queue is full ([`crate::SocketOptions::max_outbound`]), its
    /// worker's budget is spent ([`crate::SocketOptions::send_budget`]), or it took no byte for the pong timeout.
    SlowConsumer,
    /// The application closed it, or the workers shut down.
    ClosedByServer,
}

/// How a client broke RFC 6455 or a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// RFC 6455, 5.1.
    #[error("unmasked frame")]
    Unmasked,
    /// No extension was negotiated.
    #[error("reserved bit")]
    ReservedBit,
    /// 0x3-0x7, 0xB-0xF.
    #[error("reserved opcode")]
    ReservedOpcode,
    /// A control frame without FIN.
    #[error("fragmented control frame")]
    FragmentedControl,
    /// A control frame of more than 125 bytes.
    #[error("control frame too long")]
    LongControl,
    /// A length in more bytes than it needs (5.2: the minimal number MUST be used).
    #[error("length not minimal")]
    LongLength,
    /// A continuation without a message.
    #[error("continuation of nothing")]
    StrayContinuation,
    /// A first fragment inside a message.
    #[error("message inside a message")]
    NestedMessage,
    /// A close frame whose payload is one byte.
    #[error("close frame of one byte")]
    ShortClose,
    /// A close code that may not be on the wire.
    #[error("invalid close code")]
    CloseCode,
    /// A binary message while only text is accepted.
    #[error("binary message")]
    Binary,
    /// A text message or close reason that is not UTF-8.
    #[error("invalid UTF-8")]
    Utf8,
    /// More fragments than allowed.
    #[error("too many fragments")]
    Fragments,
    /// A message longer than allowed; found from the length in the header.
    #[error("message too big")]
    TooBig,
    /// A message that is no packet of Engine.IO.
    #[error("malformed packet")]
    Packet,
    /// A second GET or POST of a long-polling session at the same time.
    #[error("two requests at once")]
    Overlap,
}

impl Violation {
    /// The code of the close frame that answers it.
    #[must_use]
    pub fn code(self) -> u16 {
        match self {
            Self::Unmasked
            | Self::ReservedBit
            | Self::ReservedOpcode
            | Self::FragmentedControl
            | Self::LongControl
            | Self::LongLength
            | Self::StrayContinuation
            | Self::NestedMessage
            | Self::ShortClose
            | Self::CloseCode
            | Self::Packet
            | Self::Overlap => 1002,
            Self::Binary => 1003,
            Self::Utf8 => 1007,
            Self::Fragments => 1008,
            Self::TooBig => 1009,
        }
    }
}

/// The content of a close frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Close {
    /// The close code.
    pub code: u16,
    /// The reason, at most 123 bytes.
    pub reason: &'static str,
}

impl From<u16> for Close {
    fn from(code: u16) -> Self {
        Self { code, reason: "" }
    }
}

/// A last text message, and the close frame after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CloseNotice {
    /// The close frame.
    pub close: Close,
    /// The payload (not yet a frame) of a text message before it.
    pub text: Option<Bytes>,
}
