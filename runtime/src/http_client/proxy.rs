//! Connects through a proxy. For https it uses a tunnel (CONNECT), and otherwise a connection on which a request names
//! the whole address.
use std::{
    future::Future,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use hyper::{
    Uri,
    rt::{Read, ReadBufCursor, Write},
};
use hyper_rustls::{HttpsConnector, MaybeHttpsStream};
use hyper_util::{
    client::{
        legacy::connect::{Connected, Connection, HttpConnector, proxy::Tunnel},
        proxy::matcher::{Intercept, Matcher},
    },
    rt::TokioIo,
};
use tokio::net::TcpStream;
use tower_service::Service;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Connects to the proxy of an address, or to the address itself.
#[derive(Clone)]
pub(super) struct ProxyConnector {
    inner: HttpsConnector<HttpConnector>,
    proxies: Arc<Matcher>,
}

/// A connection.
pub(super) struct ProxyStream {
    stream: MaybeHttpsStream<TokioIo<TcpStream>>,
    /// Whether requests name the whole address.
    proxied: bool,
}

/// The proxy did not connect to the address.
#[derive(Debug, thiserror::Error)]
#[error("the proxy {proxy}: {cause}")]
pub(super) struct ProxyError {
    /// The proxy's address without its user and password.
    pub(super) proxy: Uri,
    #[source]
    pub(super) cause: BoxError,
}

impl ProxyConnector {
    pub(super) fn new(inner: HttpsConnector<HttpConnector>, proxies: Arc<Matcher>) -> Self {
        Self { inner, proxies }
    }
}

impl Service<Uri> for ProxyConnector {
    type Response = ProxyStream;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<ProxyStream, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, url: Uri) -> Self::Future {
        let mut inner = self.inner.clone();
        let https = url.scheme_str() == Some("https");
        let Some(proxy) = self.proxies.intercept(&url) else {
            return Box::pin(async move {
                let stream = inner.call(without_tls(url)?).await?;
                Ok(ProxyStream { stream, proxied: false })
            });
        };
        Box::pin(async move {
            let connected =
                if https { tunnel(inner, &proxy, url).await } else { inner.call(proxy.uri().clone()).await };
            let stream = connected.map_err(|cause| ProxyError { proxy: proxy.uri().clone(), cause })?;
            Ok(ProxyStream { stream, proxied: !https })
        })
    }
}

async fn tunnel(
    inner: HttpsConnector<HttpConnector>,
    proxy: &Intercept,
    url: Uri,
) -> Result<MaybeHttpsStream<TokioIo<TcpStream>>, BoxError> {
    let mut tunnel = Tunnel::new(proxy.uri().clone(), inner);
    if let Some(authorization) = proxy.basic_auth() {
        tunnel = tunnel.with_auth(authorization.clone());
    }
    Ok(tunnel.call(url).await?)
}

/// Returns the address for the inner connector without TLS, which the outer connector adds.
fn without_tls(url: Uri) -> Result<Uri, BoxError> {
    if url.scheme_str() != Some("https") {
        return Ok(url);
    }
    let host = url.host().ok_or("an address without a host")?;
    let port = url.port_u16().unwrap_or(443);
    Ok(Uri::builder().scheme("http").authority(format!("{host}:{port}")).path_and_query("/").build()?)
}

impl Connection for ProxyStream {
    fn connected(&self) -> Connected {
        self.stream.connected().proxy(self.proxied)
    }
}

impl Read for ProxyStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl Write for ProxyStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, parts)
    }
}
