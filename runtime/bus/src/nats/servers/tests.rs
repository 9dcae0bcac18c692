//! The servers of a URL that is replaced.
use std::fs;

use rollcall_base::BackendUrl;

use super::*;

#[tokio::test]
async fn a_url_that_asks_for_tls_asks_all_members_for_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("url");
    let url = BackendUrl::in_file("nats://a", "NATS_URL", file.clone(), |_| Ok(()));
    let servers = Servers::new(NatsOptions::new(url)).unwrap();
    let member = Host { host: "b".into(), port: 4222, name: "b".into(), tls: false };
    servers.known.lock().members = vec![member];
    for (url, tls) in [("nats://a", false), ("tls://a", true)] {
        fs::write(&file, url).unwrap();
        let (hosts, _) = servers.current().await.unwrap();
        assert!(hosts.len() == 2 && hosts.iter().all(|host| host.tls == tls), "{hosts:?}");
    }
}
