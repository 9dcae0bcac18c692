//! Files of settings, secrets, certificates and keys that cannot be used (PROTOCOL 7): a pipe, a device, and a file
//! that is too large.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rollcall_loadtest::servers::Authority;
use rollcall_loadtest::{Gateway, GatewayOptions, token};
use serde_json::json;

use crate::common::{SOON, until};

fn pipe(path: &Path) {
    let _ = fs::remove_file(path);
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

/// Returns a JWKS document with the key of RFC 7517.
fn keys() -> String {
    let (x, y) = ("MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4", "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM");
    let key = json!({"kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": "1", "x": x, "y": y});
    json!({"keys": [key]}).to_string()
}

#[test]
fn a_pipe_and_a_file_without_an_end_do_not_hold_up_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("pipe");
    pipe(&place);
    let pipe = place.to_str().unwrap();
    let authority = Authority::new().unwrap();
    let own = authority.issue(&["localhost"]).unwrap();
    let certificate = own.certificate.to_str().unwrap();
    for (settings, problem) in [
        (&[("ROLLCALL_CONFIG", pipe)][..], "ROLLCALL_CONFIG: "),
        (&[("ROLLCALL_HS256_SECRET", ""), ("ROLLCALL_HS256_SECRET_FILE", pipe)], "ROLLCALL_HS256_SECRET: "),
        (&[("REDIS_URL_FILE", pipe)], "REDIS_URL: "),
        (&[("ROLLCALL_FUNCTIONS", pipe)], "ROLLCALL_FUNCTIONS: "),
        (&[("ROLLCALL_JWKS", &format!("https://issuer.test={pipe}"))], "ROLLCALL_JWKS: "),
        (&[("ROLLCALL_TLS_CERT", pipe), ("ROLLCALL_TLS_KEY", pipe)], "TLS: "),
        (&[("ROLLCALL_TLS_CERT", certificate), ("ROLLCALL_TLS_KEY", pipe)], "TLS: "),
    ] {
        let options = GatewayOptions::new(env!("CARGO_BIN_EXE_rollcall"));
        let options = settings.iter().fold(options, |options, (name, value)| options.env(name, value));
        let said = Gateway::start(options).err().expect("it does not start").to_string();
        assert!(said.contains(problem) && said.contains("it is a pipe"), "{settings:?}: {said}");
    }
    for (setting, problem) in [("ROLLCALL_CONFIG", "ROLLCALL_CONFIG: "), ("REDIS_URL_FILE", "REDIS_URL: ")] {
        let options = GatewayOptions::new(env!("CARGO_BIN_EXE_rollcall")).env(setting, "/dev/zero");
        let said = Gateway::start(options).err().expect("it does not start").to_string();
        assert!(said.contains(problem) && said.contains("it is larger than"), "{setting}: {said}");
    }
}

#[tokio::test]
async fn a_pipe_in_the_place_of_a_file_is_a_fault_of_a_reload_and_the_next_one_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let [secret, jwks] = ["secret", "keys.json"].map(|name| folder.path().join(name));
    let good = || {
        for (file, text) in [(&secret, token::SECRET), (&jwks, &keys())] {
            let _ = fs::remove_file(file);
            fs::write(file, text).unwrap();
        }
    };
    good();
    let options = GatewayOptions::new(env!("CARGO_BIN_EXE_rollcall"))
        .without("ROLLCALL_HS256_SECRET")
        .env("ROLLCALL_HS256_SECRET_FILE", secret.display())
        .env("ROLLCALL_JWKS", format!("https://issuer.test={}", jwks.display()))
        .env("ROLLCALL_JWKS_REFRESH", "1s")
        .env("ROLLCALL_DRAIN_DEADLINE", "2s");
    let mut gateway = Gateway::start(options).unwrap();
    let read = async |outcome: &str| {
        let label = format!("outcome=\"{outcome}\"");
        let count = || gateway.metric("rollcall_reloads_total", &[&label]).unwrap();
        let before = count();
        gateway.hang_up().unwrap();
        until("the settings are read", SOON, async || count(), |count| *count > before).await;
    };
    for file in [&secret, &jwks] {
        pipe(file);
        read("faulty").await;
        good();
        read("done").await;
    }
    let said = gateway.output();
    assert_eq!(said.matches("it is a pipe").count(), 2, "{said}");
    // A pipe that stays does not delay the drain either.
    pipe(&jwks);
    let renewal = async || gateway.output();
    until("the keys are to be renewed", SOON, renewal, |said| said.contains("the keys are not renewed")).await;
    gateway.terminate().unwrap();
    assert!(gateway.wait(Duration::from_secs(3)).unwrap().success(), "{}", gateway.output());
}
