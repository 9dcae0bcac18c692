//! Explains refusals of JetStream that are due to a limit, and says what to change.

/// Returns the server's text, followed by the change that helps.
pub(super) fn explain(code: u64, description: &str) -> String {
    let change = match code {
        10_002 | 10_028 | 10_047 => "raise the storage of the account or the server, or set ROLLCALL_STREAM_MAX_BYTES",
        10_005 | 10_023 | 10_074 => "lower ROLLCALL_STREAM_REPLICAS, or add servers with JetStream and room",
        10_026 => "raise the maximum of consumers of the account and the stream; a node uses up to 10",
        10_027 => "raise the account's maximum of streams, or name a stream that is there in ROLLCALL_STREAM",
        10_113 => "the account wants a limit: set ROLLCALL_STREAM_MAX_BYTES",
        10_120 => "give the account limits for streams with ROLLCALL_STREAM_REPLICAS replicas",
        10_122 => "lower ROLLCALL_STREAM_MAX_BYTES, or raise the account's limit",
        _ => return description.to_owned(),
    };
    format!("{description}: {change}")
}
