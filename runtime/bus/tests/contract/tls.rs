//! Servers behind TLS: which authorities servers and nodes trust, and the error if a certificate does not fit.
use rollcall_base::tls::{ClientCertificate, ClientTls};
use rollcall_bus::{
    Bus,
    nats::{NatsBus, NatsError, NatsOptions},
};
use rollcall_loadtest::servers::{Authority, Issued, MemberOptions, NatsMember, NatsVersion};
use tokio::time::{Duration, Instant, sleep};

use crate::bench::{PAUSE, classroom, collect, ids, publish_surely};

pub(crate) const VERSIONS: [NatsVersion; 2] = [NatsVersion::Distribution, NatsVersion::Current];

/// Returns a server with this certificate that asks clients for a certificate of the authority.
fn server(version: NatsVersion, authority: &Authority, own: &Issued, more: &str) -> NatsMember {
    let (Issued { certificate, key }, ca) = (own, authority.certificate());
    let settings = format!(
        "jetstream {{ store_dir: store }}\n\
         tls {{ cert_file: {certificate:?}, key_file: {key:?}, ca_file: {ca:?}, verify: true, {more} }}\n"
    );
    NatsMember::start_with(MemberOptions::new(version, settings).unwrap()).unwrap()
}

fn options(server: &NatsMember, trusted: &Authority, shown: Option<&Issued>) -> NatsOptions {
    let certificate = shown.map(|shown| ClientCertificate { chain: shown.certificate.clone(), key: shown.key.clone() });
    let tls = ClientTls { system_roots: false, ca_file: Some(trusted.certificate()), certificate };
    NatsOptions { tls, ..NatsOptions::new(format!("tls://localhost:{}", server.port())) }
}

/// Returns the result of a start, without failures that are only due to a busy server. `Err` has the error's text.
pub(crate) async fn start(options: &NatsOptions) -> Result<NatsBus, String> {
    let until = Instant::now() + Duration::from_secs(30);
    loop {
        match NatsBus::connect_with(options.clone()).await {
            Ok((bus, _feed)) => return Ok(bus),
            // JetStream is ready a moment after the server, and a handshake takes a moment on a busy machine.
            Err(NatsError::Away(_) | NatsError::NoJetStream) if Instant::now() < until => sleep(PAUSE).await,
            Err(error) => return Err(error.to_string()),
        }
    }
}

/// Expects that a start with these options fails with a text in one line that contains all of these words.
pub(crate) async fn fails(options: &NatsOptions, words: &[&str]) {
    let Err(error) = start(options).await else { panic!("it starts, without {words:?}") };
    for word in words {
        assert!(error.contains(word) && !error.contains('\n'), "{word}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_private_authority_and_a_client_certificate_are_enough_and_each_fault_says_what_to_change() {
    let (ours, theirs) = (Authority::new().unwrap(), Authority::new().unwrap());
    let (own, node) = (ours.issue(&["localhost"]).unwrap(), ours.issue(&["node"]).unwrap());
    for version in VERSIONS {
        let server = server(version, &ours, &own, "");
        let good = options(&server, &ours, Some(&node));
        start(&good).await.unwrap();
        let (bus, mut feed) = NatsBus::connect_with(good).await.unwrap();
        let room = classroom();
        while bus.subscribe(&room).await.is_err() {}
        publish_surely(&bus, &room, 1).await;
        assert_eq!(ids(&collect(&mut feed, 1).await), [1]);

        fails(
            &options(&server, &theirs, Some(&node)),
            &["localhost", "no authority that is trusted", "ROLLCALL_NATS_CA_FILE"],
        )
        .await;
        fails(&options(&server, &ours, None), &["asks for a client certificate", "ROLLCALL_NATS_CERT"]).await;
        let foreign = theirs.issue(&["node"]).unwrap();
        fails(&options(&server, &ours, Some(&foreign)), &["client's certificate", "ROLLCALL_NATS_CERT"]).await;
        let expired = ours.issue_expired(&["node"]).unwrap();
        fails(&options(&server, &ours, Some(&expired)), &["client's certificate", "ROLLCALL_NATS_CERT"]).await;
        let torn = Issued { key: ours.certificate(), ..node.clone() };
        fails(&options(&server, &ours, Some(&torn)), &["ca.crt", "private key"]).await;
    }
    let elsewhere = ours.issue(&["nats.example"]).unwrap();
    let elsewhere = server(NatsVersion::Distribution, &ours, &elsewhere, "");
    fails(&options(&elsewhere, &ours, Some(&node)), &["for nats.example, not for localhost"]).await;
    let old = ours.issue_expired(&["localhost"]).unwrap();
    let old = server(NatsVersion::Distribution, &ours, &old, "");
    fails(&options(&old, &ours, Some(&node)), &["expired", "renew it"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_begins_with_tls_needs_the_setting_and_others_must_not_have_it() {
    let authority = Authority::new().unwrap();
    let (own, node) = (authority.issue(&["localhost"]).unwrap(), authority.issue(&["node"]).unwrap());
    let first = server(NatsVersion::Current, &authority, &own, "handshake_first: true");
    let options_of =
        |server: &NatsMember, tls_first| NatsOptions { tls_first, ..options(server, &authority, Some(&node)) };
    let bus = start(&options_of(&first, true)).await.unwrap();
    publish_surely(&bus, &classroom(), 1).await;
    let Err(error) = NatsBus::connect_with(options_of(&first, false)).await else { panic!("it starts") };
    assert!(error.to_string().contains("ROLLCALL_NATS_TLS_FIRST=true"), "{error}");
    let usual = server(NatsVersion::Current, &authority, &own, "");
    fails(&options_of(&usual, true), &["unset ROLLCALL_NATS_TLS_FIRST"]).await;
}
