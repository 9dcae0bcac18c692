//! Why a connection ends, and the last message that the client gets.
use bytes::Bytes;

/// Why a connection has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The client sent a close frame.
    ClosedByClient,
    /// The socket broke, or ended without a close frame.
    Lost,
    /// No frame came within the pong timeout.
    PongTimedOut,
    /// The client broke RFC 6455 or exceeded a limit. It gets the violation's close code.
    Violation(Violation),
    /// The client does not read. Its own queue is full ([`crate::SocketOptions::max_outbound`]), its worker's budget is
    /// used up ([`crate::SocketOptions::send_budget`]), or it took no byte for the pong timeout.
    SlowConsumer,
    /// The application closed the connection, or the workers shut down.
    ClosedByServer,
}

/// How a client broke RFC 6455 or exceeded a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// A frame without a mask (RFC 6455, 5.1).
    #[error("unmasked frame")]
    Unmasked,
    /// A reserved bit is set, although no extension was negotiated.
    #[error("reserved bit")]
    ReservedBit,
    /// A reserved opcode: 0x3-0x7 or 0xB-0xF.
    #[error("reserved opcode")]
    ReservedOpcode,
    /// A control frame without FIN.
    #[error("fragmented control frame")]
    FragmentedControl,
    /// A control frame of more than 125 bytes.
    #[error("control frame too long")]
    LongControl,
    /// A length that is encoded in more bytes than it needs (5.2: the minimal number MUST be used).
    #[error("length not minimal")]
    LongLength,
    /// A continuation frame without a message.
    #[error("continuation of nothing")]
    StrayContinuation,
    /// A first fragment before the end of another message.
    #[error("message inside a message")]
    NestedMessage,
    /// A close frame with a payload of one byte.
    #[error("close frame of one byte")]
    ShortClose,
    /// A close code that must not be sent.
    #[error("invalid close code")]
    CloseCode,
    /// A binary message, although only text is accepted.
    #[error("binary message")]
    Binary,
    /// A text message or close reason that is not UTF-8.
    #[error("invalid UTF-8")]
    Utf8,
    /// A message with more fragments than allowed.
    #[error("too many fragments")]
    Fragments,
    /// A message that is longer than allowed. This is found from the length in the header.
    #[error("message too big")]
    TooBig,
    /// A message that is not a packet of Engine.IO.
    #[error("malformed packet")]
    Packet,
    /// A second concurrent GET or POST of a long-polling session.
    #[error("two requests at once")]
    Overlap,
}

impl Violation {
    /// Returns the close code for this violation.
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
    /// The reason, of at most 123 bytes.
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
    /// The payload of a text message before the close frame, without a frame.
    pub text: Option<Bytes>,
}
