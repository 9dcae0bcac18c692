//! The PROXY protocol, versions 1 and 2: a balancer first sends a header with the client's address.
//!
//! Invariant: exactly the header is read, byte by byte while its end is unknown, because TLS or HTTP follows
//! immediately. A header is at most [`MAX_V1`] or [`MAX_V2`] bytes long, and the caller limits the time.
use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use tokio::io::{AsyncRead, AsyncReadExt};

/// The bytes of the longest header of version 1, including its line end.
const MAX_V1: usize = 107;
/// The maximum number of bytes of version 2 after the first 16: addresses, and fields that balancers add (TLVs).
const MAX_V2: usize = 4096;
/// The first bytes of version 2.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// The first bytes of version 1.
const TEXT: &[u8] = b"PROXY ";

/// Reads the header and returns the client's address. `None` if the balancer itself connects (a health check), or the
/// client has no IP address.
pub(crate) async fn read(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<SocketAddr>> {
    let mut start = [0; SIGNATURE.len()];
    // Every header of version 1 is at least this long.
    stream.read_exact(&mut start).await?;
    if start == *SIGNATURE {
        binary(stream).await
    } else if start.starts_with(TEXT) {
        text(stream, &start).await
    } else {
        Err(invalid())
    }
}

async fn text(stream: &mut (impl AsyncRead + Unpin), start: &[u8]) -> io::Result<Option<SocketAddr>> {
    let mut line = start.to_vec();
    while !line.ends_with(b"\r\n") {
        if line.len() == MAX_V1 {
            return Err(invalid());
        }
        line.push(stream.read_u8().await?);
    }
    let line = std::str::from_utf8(&line[TEXT.len()..line.len() - 2]).map_err(|_| invalid())?;
    let mut words = line.split(' ');
    let family = words.next();
    if family == Some("UNKNOWN") {
        return Ok(None);
    }
    let [source, _, port, _] = [words.next(), words.next(), words.next(), words.next()];
    let (source, port) = source.zip(port).ok_or_else(invalid)?;
    let source = match family {
        Some("TCP4") => source.parse::<Ipv4Addr>().map(IpAddr::from).map_err(|_| invalid())?,
        Some("TCP6") => source.parse::<Ipv6Addr>().map(IpAddr::from).map_err(|_| invalid())?,
        _ => return Err(invalid()),
    };
    Ok(Some(SocketAddr::new(source, port.parse().map_err(|_| invalid())?)))
}

async fn binary(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<SocketAddr>> {
    let (command, family) = (stream.read_u8().await?, stream.read_u8().await?);
    let length = usize::from(stream.read_u16().await?);
    if length > MAX_V2 {
        return Err(invalid());
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    match command {
        // The command LOCAL: the connection is the balancer's own.
        0x20 => return Ok(None),
        0x21 => {}
        _ => return Err(invalid()),
    }
    // The body has the source address, the destination address, the source port and the destination port.
    let client = match family {
        // TCP over IPv4.
        0x11 => body.first_chunk::<12>().map(|part| {
            let [a, b, c, d, _, _, _, _, high, low, _, _] = *part;
            SocketAddr::new(Ipv4Addr::new(a, b, c, d).into(), u16::from_be_bytes([high, low]))
        }),
        // TCP over IPv6.
        0x21 => body.first_chunk::<36>().and_then(|part| {
            let address = part.first_chunk::<16>()?;
            Some(SocketAddr::new(Ipv6Addr::from(*address).into(), u16::from_be_bytes([part[32], part[33]])))
        }),
        // Unspecified, datagrams and Unix sockets: there is no address by which connections could be counted.
        0x00 | 0x12 | 0x22 | 0x31 | 0x32 => return Ok(None),
        _ => None,
    };
    client.map(Some).ok_or_else(invalid)
}

fn invalid() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "not a header of the PROXY protocol")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the result of reading these bytes, and the bytes that were left.
    async fn read_from(bytes: &[u8]) -> (Result<Option<String>, io::ErrorKind>, Vec<u8>) {
        let mut stream = bytes;
        let read = read(&mut stream).await.map(|client| client.map(|client| client.to_string()));
        (read.map_err(|error| error.kind()), stream.to_vec())
    }

    fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let length = u16::try_from(body.len()).unwrap().to_be_bytes();
        [&SIGNATURE[..], &[command, family], &length, body].concat()
    }

    #[tokio::test]
    async fn both_versions_give_the_clients_address_and_leave_the_rest_unread() {
        let four = [1, 2, 3, 4, 10, 0, 0, 1, 0x16, 0x2e, 1, 0xbb];
        let mut six = [0; 36];
        six[..4].copy_from_slice(&[0x20, 0x01, 0x0d, 0xb8]);
        six[15] = 7;
        six[32..34].copy_from_slice(&[0, 80]);
        let with_tlv = [&four[..], &[0x04, 0, 3, 1, 2, 3]].concat();
        for (header, client) in [
            (b"PROXY TCP4 1.2.3.4 10.0.0.1 5678 443\r\n".to_vec(), Some("1.2.3.4:5678")),
            (b"PROXY TCP6 2001:db8::7 ::1 80 443\r\n".to_vec(), Some("[2001:db8::7]:80")),
            (b"PROXY UNKNOWN\r\n".to_vec(), None),
            (b"PROXY UNKNOWN ffff:f::1 ::1 1 2\r\n".to_vec(), None),
            (v2(0x21, 0x11, &four), Some("1.2.3.4:5678")),
            (v2(0x21, 0x11, &with_tlv), Some("1.2.3.4:5678")),
            (v2(0x21, 0x21, &six), Some("[2001:db8::7]:80")),
            (v2(0x20, 0x00, &[]), None),
            (v2(0x20, 0x11, &four), None),
            (v2(0x21, 0x00, &[1, 2, 3]), None),
            (v2(0x21, 0x31, &[0; 216]), None),
        ] {
            let bytes = [&header[..], b"\x16\x03\x01 TLS"].concat();
            let expected = (Ok(client.map(str::to_owned)), b"\x16\x03\x01 TLS".to_vec());
            assert_eq!(read_from(&bytes).await, expected, "{header:?}");
        }
    }

    #[tokio::test]
    async fn anything_else_is_an_error() {
        for bytes in [
            b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
            b"PROXY TCP4 1.2.3.4\r\nxxxxxxxxxxxxxx".to_vec(),
            b"PROXY TCP4 ::1 ::1 1 2\r\n".to_vec(),
            b"PROXY TCP6 1.2.3.4 1.2.3.4 1 2\r\n".to_vec(),
            b"PROXY TCP4 1.2.3.4 1.2.3.4 65536 2\r\n".to_vec(),
            b"PROXY UDP4 1.2.3.4 1.2.3.4 1 2\r\n".to_vec(),
            b"PROXY TCP4 1.2.3.\xff 1.2.3.4 1 2\r\n".to_vec(),
            [b"PROXY UNKNOWN ".to_vec(), vec![b'x'; 200]].concat(),
            v2(0x11, 0x11, &[0; 12]),
            v2(0x22, 0x11, &[0; 12]),
            v2(0x21, 0x13, &[0; 12]),
            v2(0x21, 0x11, &[0; 11]),
            v2(0x21, 0x21, &[0; 35]),
            v2(0x21, 0x11, &[0; MAX_V2 + 1]),
        ] {
            assert_eq!(read_from(&bytes).await.0, Err(io::ErrorKind::InvalidData), "{bytes:?}");
        }
        for cut in [&b""[..], b"PROXY", b"PROXY TCP4 1.2.3.4", &SIGNATURE[..], &v2(0x21, 0x11, &[0; 12])[..20]] {
            assert_eq!(read_from(cut).await.0, Err(io::ErrorKind::UnexpectedEof), "{cut:?}");
        }
    }
}
