//! Requests to a real TLS server, and through a real proxy.
use std::path::Path;

use bytes::Bytes;
use hyper::{StatusCode, Uri};
use rollcall_base::Secret;
use rollcall_loadtest::{ConnectProxy, TlsFront, servers::Authority};

use super::{
    Client, FetchError,
    egress::{Egress, EgressOptions},
    fixture::{Fixture, Reply},
};

async fn fixture() -> Fixture {
    Fixture::start(|_| Reply::Answer(StatusCode::OK, "it is here".into())).await
}

fn trusting(ca_file: &Path) -> EgressOptions {
    EgressOptions { ca_file: Some(ca_file.to_owned()), ..EgressOptions::default() }
}

async fn get(options: &EgressOptions, url: &str) -> Result<Bytes, FetchError> {
    Client::new(&Egress::open(options).unwrap()).get(url.parse::<Uri>().unwrap(), 100).await
}

#[tokio::test]
async fn a_server_of_a_private_authority_is_asked_where_its_file_is_named() {
    let authority = Authority::new().unwrap();
    let origin = fixture().await;
    let front = TlsFront::start(&authority.issue(&["localhost"]).unwrap(), origin.address).await.unwrap();
    let expired = TlsFront::start(&authority.issue_expired(&["localhost"]).unwrap(), origin.address).await.unwrap();
    let trusting = trusting(&authority.certificate());
    let url = |host: &str, front: &TlsFront| format!("https://{host}:{}/x", front.address().port());

    assert_eq!(get(&trusting, &url("localhost", &front)).await.unwrap(), "it is here");
    let plain = format!("http://{}/x", origin.address);
    assert_eq!(get(&trusting, &plain).await.unwrap(), "it is here");
    let told = async |options: &EgressOptions, url: String| get(options, &url).await.unwrap_err().to_string();
    let stranger = told(&EgressOptions::default(), url("localhost", &front)).await;
    assert!(stranger.contains("to the file of ROLLCALL_CA_FILE"), "{stranger}");
    let name = told(&trusting, url("127.0.0.1", &front)).await;
    assert!(name.starts_with("its certificate is for localhost, not for 127.0.0.1"), "{name}");
    let late = told(&trusting, url("localhost", &expired)).await;
    assert!(late.starts_with("its certificate expired "), "{late}");
    let no_tls = told(&trusting, format!("https://{}/x", origin.address)).await;
    assert!(no_tls.starts_with("it does not speak TLS here"), "{no_tls}");
}

#[tokio::test]
async fn https_goes_through_a_tunnel_and_the_server_is_checked_as_without_one() {
    let authority = Authority::new().unwrap();
    let mut origin = fixture().await;
    let front = TlsFront::start(&authority.issue(&["keys.test"]).unwrap(), origin.address).await.unwrap();
    let proxy = ConnectProxy::start(front.address(), Some("Basic bWU6cEBzcw==")).await.unwrap();
    let through =
        |proxy: String| EgressOptions { https_proxy: Some(Secret::new(proxy)), ..trusting(&authority.certificate()) };
    let options = through(format!("http://me:p%40ss@{}", proxy.address()));
    // No resolver knows this name, so only the proxy can connect to it.
    assert_eq!(get(&options, "https://keys.test/x").await.unwrap(), "it is here");
    assert_eq!(proxy.requests(), ["CONNECT keys.test:443 HTTP/1.1"]);
    let seen = origin.next().await;
    assert_eq!(seen.uri, "/x");
    assert!(!seen.headers.contains_key("proxy-authorization"), "the password is the proxy's");
    let name = get(&options, "https://other.test/x").await.unwrap_err().to_string();
    assert!(name.starts_with("its certificate is for keys.test, not for other.test"), "{name}");

    for (proxy, advice) in [
        (format!("http://me:wrong@{}", proxy.address()), "USER:PASSWORD@"),
        ("http://me:wrong@127.0.0.1:1".to_owned(), "correct HTTPS_PROXY"),
    ] {
        let told = get(&through(proxy), "https://keys.test/x").await.unwrap_err().to_string();
        assert!(told.starts_with("the proxy 127.0.0.1:") && told.contains(advice), "{told}");
        assert!(!told.contains("wrong"), "{told}");
    }
}

#[tokio::test]
async fn http_is_asked_of_the_proxy_itself() {
    let mut origin = fixture().await;
    // The origin server is also the proxy here, so it receives what a proxy receives.
    let options = EgressOptions {
        http_proxy: Some(Secret::new(format!("http://me:p%40ss@{}", origin.address))),
        ..EgressOptions::default()
    };
    assert_eq!(get(&options, "http://keys.test/x?y=1").await.unwrap(), "it is here");
    let seen = origin.next().await;
    assert_eq!(seen.uri, "http://keys.test/x?y=1");
    assert_eq!(seen.headers["proxy-authorization"], "Basic bWU6cEBzcw==");
    assert_eq!(seen.headers["host"], "keys.test");
}

#[tokio::test]
async fn this_machine_and_what_no_proxy_names_are_asked_directly() {
    let origin = fixture().await;
    let nobody = || Some(Secret::new("http://127.0.0.1:1"));
    let options = EgressOptions { http_proxy: nobody(), https_proxy: nobody(), ..EgressOptions::default() };
    for host in ["127.0.0.1", "localhost"] {
        let url = format!("http://{host}:{}/x", origin.address.port());
        assert_eq!(get(&options, &url).await.unwrap(), "it is here", "{host}");
    }
}

#[test]
fn no_proxy_is_read_as_curl_does() {
    let proxy = Some(Secret::new("http://me:password@127.0.0.1:1"));
    let no_proxy = ".example, keys.test,10.0.0.0/8".into();
    let egress = Egress::open(&EgressOptions { http_proxy: proxy, no_proxy, ..EgressOptions::default() }).unwrap();
    let through = |host: &str| egress.proxy_authorization(&format!("http://{host}/").parse().unwrap()).is_some();
    for host in ["other.test", "192.0.2.1"] {
        assert!(through(host), "{host}");
    }
    for host in ["a.example", "keys.test", "a.keys.test", "10.1.2.3", "localhost:8080", "127.0.0.2", "[::1]"] {
        assert!(!through(host), "{host}");
    }
}

#[test]
fn a_file_that_cannot_be_used_is_named() {
    let error = Egress::open(&trusting(Path::new("/nowhere/ca.pem"))).unwrap_err().to_string();
    assert!(error.contains("/nowhere/ca.pem"), "{error}");
}
